# A laptop that builds on a desktop and takes what it has, while the desktop is
# on; and that desktop. Away from home the laptop boots the other of its
# configurations, or the same: nothing waits long for a desktop that is off.
#
#   sudo nixos-rebuild switch --flake .#laptop-home
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
      machine = name: modules: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          nix-queued.nixosModules.default
          { networking.hostName = name; }
        ] ++ modules;
      };
    in
    {
      nixosConfigurations = {
        desktop = machine "desktop" [ ./desktop.nix ];
        laptop-home = machine "laptop" [ ./laptop.nix ];
        laptop-mobile = machine "laptop" [
          ./laptop.nix
          ({ lib, ... }: {
            services.laptop-builder-client.enable = lib.mkForce false;
          })
        ];
      };
    };
}
