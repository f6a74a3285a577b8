# Adds the packages to a package set.
final: prev: {
  nix-queued = final.callPackage ./package.nix { };
  nix-queued-commands = final.callPackage ./commands.nix { };
}
