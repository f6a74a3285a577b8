# A MacBook with nix-darwin: it takes what the server of ../server has, and
# pushes there what it has built, since nobody else can build for macOS.
#
#   darwin-rebuild switch --flake .#macbook
{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    nix-darwin = {
      url = "github:nix-darwin/nix-darwin";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    # Where you keep it; a path works, too.
    nix-queued.url = "git+https://git.example.org/nix-queued";
  };

  outputs = { nix-darwin, nix-queued, ... }: {
    darwinConfigurations.macbook = nix-darwin.lib.darwinSystem {
      system = "aarch64-darwin";
      modules = [
        nix-queued.darwinModules.default
        ./macbook.nix
      ];
    };
  };
}
