# hawk, a PC, delegates builds for aarch64 to three boards, keeps what comes
# back, and serves it, so that a kernel is compiled once and not three times.
#
#   nixos-rebuild switch --flake .#hawk
#   nixos-rebuild switch --flake .#opi01 --target-host opi01.internal
#
# A real machine needs its hardware-configuration.nix in the list of modules.
{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Where you keep it; a path works, too.
    nix-queued.url = "git+https://git.example.org/nix-queued";
  };

  outputs = { nixpkgs, nix-queued, ... }:
    let
      machine = system: role: name: nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [
          nix-queued.nixosModules.default
          role
          { networking.hostName = name; }
        ];
      };
      board = machine "aarch64-linux" ./board.nix;
    in
    {
      nixosConfigurations = {
        hawk = machine "x86_64-linux" ./hawk.nix "hawk";
        opi01 = board "opi01";
        opi02 = board "opi02";
        opi03 = board "opi03";
      };
    };
}
