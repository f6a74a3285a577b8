# The type of options that name a file with a secret in it.
lib:
lib.mkOptionType {
  name = "secretFile";
  description =
    "absolute path, as a string, of a file outside of the Nix store";
  descriptionClass = "noun";
  check = v:
    builtins.isString v
    && lib.hasPrefix "/" v
    && !lib.hasPrefix "${builtins.storeDir}/" v;
  merge = lib.options.mergeEqualOption;
}
