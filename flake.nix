# nix run, nix build, nix develop, and the modules of nixos-module/.
{
  description = "Signs, uploads and pins what Nix builds, without waiting";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (builtins) listToAttrs map;
      systems = [
        "aarch64-darwin"
        "aarch64-linux"
        "x86_64-darwin"
        "x86_64-linux"
      ];
      forEach = names: make:
        listToAttrs (map (name: { inherit name; value = make name; }) names);

      modules = import ./nixos-module { };
      packagesOf = system: (import ./nixos-module {
        pkgs = nixpkgs.legacyPackages.${system};
      }).packages;

      app = package: program: {
        type = "app";
        program = "${package}/bin/${program}";
      };
      commands = builtins.attrNames
        (nixpkgs.lib.filterAttrs (_: kind: kind == "regular")
          (builtins.readDir ./nixos-module/scripts));
    in
    {
      inherit (modules)
        darwinModules
        lib
        nixosModules
        overlays
        ;

      packages = forEach systems packagesOf;

      apps = forEach systems (system:
        let packages = packagesOf system; in
        forEach [ "queued" "queuectl" "queued-hook" ] (app packages.nix-queued)
        // forEach commands (app packages.commands)
        // { default = app packages.nix-queued "queuectl"; });

      checks = forEach systems (system: {
        inherit (packagesOf system) commands nix-queued;
      });

      devShells = forEach systems (system: {
        default = nixpkgs.legacyPackages.${system}.mkShell {
          inputsFrom = [ (packagesOf system).nix-queued ];
        };
      });
    };
}
