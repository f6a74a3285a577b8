# All of it, for those without flakes:
#
#   imports = [ (import ./nixos-module { }).nixosModules.default ];
#
# and, from the top of this repository,
#
#   nix-build nixos-module --arg pkgs 'import <nixpkgs> { }' \
#     -A packages.nix-queued
{
  pkgs ? null,
}:
let
  # Nix 2.8 wants a module, not the file that it is in.
  module = file: { imports = [ file ]; };
  together = modules: modules // {
    default = { imports = builtins.attrValues modules; };
  };
in
{
  lib = import ./lib;

  nixosModules = together {
    nix-queued = module ./modules/agent/nixos.nix;
    client = module ./modules/client/nixos.nix;
    coordinator = module ./modules/coordinator.nix;
    builder = module ./modules/builder.nix;
    harmonia = module ./modules/harmonia.nix;
    proxy = module ./modules/proxy.nix;
    uploadEndpoint = module ./modules/upload-endpoint.nix;
    populate = module ./modules/populate-cache.nix;
    binary-cache = module ./modules/binary-cache.nix;
    laptop-builder-client = module ./modules/laptop-builder-client.nix;
    offload-server = module ./modules/offload-server.nix;
    utilities = module ./modules/utilities.nix;
    compat = module ./modules/compat.nix;
  };

  darwinModules = together {
    nix-queued = module ./modules/agent/darwin.nix;
    client = module ./modules/client/darwin.nix;
    utilities = module ./modules/utilities.nix;
  };

  overlays.default = import ./overlay.nix;
}
// (
  if pkgs == null then
    { }
  else
    {
      packages = rec {
        nix-queued = pkgs.callPackage ./package.nix { };
        commands = pkgs.callPackage ./commands.nix { };
        default = nix-queued;
      };
    }
)
