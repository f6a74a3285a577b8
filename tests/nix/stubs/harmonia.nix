# services.harmonia as nixpkgs has had it: `cache` since its split, flat before.
{ flat }:
{ lib, ... }:
let
  inherit (lib) mkOption types;
  options = {
    enable = mkOption { type = types.bool; default = false; };
    signKeyPaths = mkOption { type = types.listOf types.path; default = [ ]; };
    settings = mkOption { type = types.attrsOf types.anything; default = { }; };
  };
in
{
  options.services.harmonia = if flat then options else { cache = options; };
}
