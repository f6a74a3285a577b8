# The modules and the library alone: without inputs, so that evaluating it
# fetches nothing. The flake above has packages as well.
{
  description = "Nix caches, builders and uploads: modules without nixpkgs";

  inputs = { };

  outputs = _: import ./. { };
}
