# A NAS that is the cache of a site: it serves what it has built and what it
# has fetched from cache.nixos.org under one address, and hands builds to three
# builders. Every other machine is a client.
#
#   nixos-rebuild switch --flake .#nas-01
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
      machine = name: role: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          nix-queued.nixosModules.default
          role
          { networking.hostName = name; }
        ];
      };
    in
    {
      nixosConfigurations = builtins.mapAttrs machine {
        nas-01 = ./nas-01.nix;
        nix-01 = ./builder.nix;
        nix-02 = ./builder.nix;
        nix-03 = ./builder.nix;
        workstation = ./client.nix;
      };
    };
}
