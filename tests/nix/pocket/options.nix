# Declaring options, and merging what is defined for them.
lib:
let
  definitions = import ./definitions.nix;
  inherit (builtins) filter head toJSON tryEval;

  show = v: (tryEval (toJSON v)).value or "…";
  plainName = "[a-zA-Z_][a-zA-Z0-9_'-]*|\\*|<name>|\\[entry .*";
  showAll = ds: lib.concatMapStrings (d: "\n- ${show d.value}") ds;

  mergeEqualOption = loc: ds:
    if definitions.same ds then
      (head ds).value
    else
      throw ("The option `${lib.showOption loc}' has conflicting definition "
        + "values:${showAll ds}");
in
rec {
  showOption = lib.concatMapStringsSep "." (name:
    if builtins.match plainName name != null then name else toJSON name);

  # The value of an option of `type`; `ds` are all its definitions.
  mergeDefinitions = loc: type: ds:
    let
      found = definitions.effective ds;
      wrong = filter (d: !type.check d.value) found;
    in
    if found == [ ] then
      throw ("The option `${showOption loc}' was accessed but has no value "
        + "defined.")
    else if wrong != [ ] then
      throw ("A definition for option `${showOption loc}' is not of type "
        + "`${type.description}'. Definition values:${showAll wrong}")
    else
      type.merge loc found;

  options = { inherit mergeEqualOption; };

  mkOption = attributes: attributes // { _type = "option"; };
  isOption = o: definitions.kind o == "option";
  mkEnableOption = what: mkOption {
    type = lib.types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${what}.";
  };
  mkPackageOption = pkgs: name: { default ? name, ... }:
    let path = lib.toList default; in
    mkOption {
      type = lib.types.package;
      description = "The ${name} package to use.";
      default = lib.attrByPath path
        (throw "pkgs.${showOption path} is missing") pkgs;
      defaultText = literalExpression "pkgs.${showOption path}";
    };
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  literalMD = text: { _type = "literalMD"; inherit text; };
}
