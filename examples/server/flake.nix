# A server that is always on: it builds the configurations of all machines at
# night, serves them, and takes what a MacBook pushes (see ../macbook).
#
#   nixos-rebuild switch --flake .#server
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
        server = ./server.nix;
        desktop = ./desktop.nix;
      };
    };
}
