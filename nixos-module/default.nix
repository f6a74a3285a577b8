# All of it, for those without flakes:
#
#   imports = [ (import ./nixos-module { }).nixosModules.default ];
#
# and, from the top of this repository,
#
#   nix-build nixos-module --arg pkgs 'import <nixpkgs> { }' -A packages.nix-queued
{
  pkgs ? null,
}:
let
  present = builtins.filter builtins.pathExists;
  module = file: { imports = present [ file ]; };

  nixos = {
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

  darwin = {
    nix-queued = module ./modules/agent/darwin.nix;
    client = module ./modules/client/darwin.nix;
  };

  all = modules: modules // {
    default = { imports = builtins.attrValues modules; };
  };
in
{
  lib = if builtins.pathExists ./lib/default.nix then import ./lib else { };
  nixosModules = all nixos;
  darwinModules = all darwin;
  overlays.default = import ./overlay.nix;
}
// (
  if pkgs == null then { } else {
    packages = rec {
      nix-queued = pkgs.callPackage ./package.nix { };
      default = nix-queued;
    };
  }
)
