# Every option that our modules declare, as data for options_doc.py:
#
#   [ { name, type, description, defaults, example } ]
#
# `defaults` has one for each system that has the option. A default and the
# example are { text } of an expression, { value } of data, or null.
let
  lib = import ./pocket;
  classes = {
    NixOS = "nixos";
    nix-darwin = "darwin";
  };

  evaluate = arguments:
    (import ./eval.nix ({ module = { }; } // arguments)).options;

  # { name = option; } of a tree of options.
  leaves = lib.concatMapAttrs (_: o:
    if !(lib.isOption o) then
      leaves o
    else if o.visible or true then
      { ${lib.showOption o.loc} = o; } // leaves (o.type.getSubOptions o.loc)
    else
      { });

  ofClass = class:
    removeAttrs (leaves (evaluate { inherit class; }))
      (lib.attrNames (leaves (evaluate { inherit class; base = [ ]; })));
  found = lib.mapAttrs (_: ofClass) classes;

  # What is not data has to say what it is.
  isData = v: (builtins.tryEval (builtins.deepSeq v true)).success
    && !(lib.isDerivation v) && !(lib.isFunction v);
  shown = name: what: v:
    if lib.isAttrs v && v ? _type then
      { inherit (v) text; }
    else if isData v then
      { value = v; }
    else
      throw "${name}: ${what} is not data; write it as text";

  defaultOf = name: o:
    if o ? defaultText then shown name "defaultText" o.defaultText
    else if o ? default then shown name "default" o.default
    else null;

  describe = name:
    let
      places = lib.filterAttrs (_: options: options ? ${name}) found;
      o = (lib.head (lib.attrValues places)).${name};
    in
    {
      inherit name;
      type = o.type.description;
      description = o.description or (throw "${name} has no description");
      defaults = lib.mapAttrs (_: options: defaultOf name options.${name})
        places;
      example = if o ? example then shown name "example" o.example else null;
    };
  names = lib.attrNames (lib.foldl' (a: b: a // b) { } (lib.attrValues found));
in
map describe names
