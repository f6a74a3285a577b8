# Options under a second name.
lib:
let
  inherit (lib) attrByPath optional setAttrByPath showOption;

  alias = { from, to, visible, warning ? null }: { config, options, ... }:
    let
      old = attrByPath from (throw "no ${showOption from}") options;
      new = attrByPath to (throw "no ${showOption to}") options;
    in
    {
      options = setAttrByPath from (lib.mkOption {
        inherit (new) type;
        description = "Alias of {option}`${showOption to}`.";
        inherit visible;
        apply = _: attrByPath to null config;
      });
      config = lib.mkMerge (
        [
          (setAttrByPath to (lib.mkMerge (map
            (d: lib.mkOverride d.priority (lib.mkOrder d.order d.value))
            old.definitions)))
        ]
        ++ optional (warning != null) {
          warnings = optional old.isDefined warning;
        });
    };
in
{
  mkAliasOptionModule = from: to: alias {
    inherit from to;
    visible = true;
  };

  mkRenamedOptionModule = from: to: alias {
    inherit from to;
    visible = false;
    warning = "The option `${showOption from}' has been renamed to "
      + "`${showOption to}'.";
  };

  mkRemovedOptionModule = path: why: { options, ... }:
    let
      message = "The option `${showOption path}' can no longer be used. ${why}";
    in
    {
      options = setAttrByPath path (lib.mkOption {
        visible = false;
        apply = _: throw message;
      });
      config.assertions = [
        {
          assertion = !(attrByPath path null options).isDefined;
          inherit message;
        }
      ];
    };
}
