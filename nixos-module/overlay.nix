# Adds nix-queued to a package set.
final: _: {
  nix-queued = final.callPackage ./package.nix { };
}
