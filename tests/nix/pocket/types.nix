# Types of options: what is right, and how several definitions become one.
lib:
let
  definitions = import ./definitions.nix;
  inherit (builtins)
    all
    concatLists
    concatStringsSep
    elem
    foldl'
    head
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isPath
    isString
    map
    match
    substring
    toJSON
    ;
  inherit (lib) mergeDefinitions;

  # `shape` says how to put the description into another one: a noun needs
  # no parentheses, words with "or" do.
  mk = description: check: extra: {
    inherit description check;
    name = description;
    shape = "noun";
    merge = lib.options.mergeEqualOption;
    getSubOptions = _: { };
  } // extra;

  phrase = shapes: t:
    if elem t.shape shapes then t.description else "(${t.description})";
  inside = phrase [ "noun" "composite" ];
  asNoun = phrase [ "noun" ];
  orOther = phrase [ "noun" "or" ];

  values = map (d: d.value);
  joined = separator: _: ds: concatStringsSep separator (values ds);
  absolute = s: isString s && substring 0 1 s == "/";
in
rec {
  # --- Strings.
  str = mk "string" isString { };
  nonEmptyStr = mk "non-empty string"
    (s: isString s && match "[ \t\n]*" s == null) { };
  singleLineStr = mk "(optionally newline-terminated) single-line string"
    (s: isString s && match "[^\n\r]*\n?" s != null) {
      merge = loc: ds:
        lib.removeSuffix "\n" (lib.options.mergeEqualOption loc ds);
    };
  strMatching = pattern: mk "string matching the pattern ${pattern}"
    (s: isString s && match pattern s != null) { };
  separatedString = separator:
    mk "strings concatenated with ${toJSON separator}" isString {
      merge = joined separator;
    };
  lines = separatedString "\n";
  commas = separatedString ",";
  enum = allowed: mk
    (if builtins.length allowed == 1 then
      "value ${toJSON (head allowed)} (singular enum)"
    else
      "one of ${lib.concatMapStringsSep ", " toJSON allowed}")
    (v: elem v allowed) { shape = "or"; };

  # --- Numbers.
  bool = mk "boolean" isBool { };
  int = mk "signed integer" isInt { };
  float = mk "floating point number" isFloat { };
  number = either int float;
  ints = {
    positive = mk "positive integer, meaning >0" (i: isInt i && i > 0) {
      shape = "meaning";
    };
    unsigned = mk "unsigned integer, meaning >=0" (i: isInt i && i >= 0) {
      shape = "meaning";
    };
    between = low: high: mk
      "integer between ${toString low} and ${toString high} (both inclusive)"
      (i: isInt i && i >= low && i <= high) { };
  };
  port = ints.between 0 65535 // {
    description =
      "16 bit unsigned integer; between 0 and 65535 (both inclusive)";
  };

  # --- Files.
  path = mk "absolute path"
    (p: isPath p || absolute p || lib.isDerivation p) { };
  package = mk "package"
    (p: lib.isDerivation p || (absolute p && lib.isStorePath p)) { };

  # --- Anything.
  unspecified = mk "unspecified value" (_: true) { };
  raw = mk "raw value" (_: true) { };
  anything = mk "anything" (_: true) {
    merge = loc: ds:
      if all (d: isAttrs d.value && !lib.isDerivation d.value) ds then
        (attrsOf anything).merge loc ds
      else
        lib.options.mergeEqualOption loc ds;
  };
  attrs = mk "attribute set" isAttrs {
    merge = _: ds: foldl' (a: d: a // d.value) { } ds;
  };

  # --- Types made of types.
  nullOr = t: mk "null or ${orOther t}" (v: v == null || t.check v) {
    shape = "or";
    merge = loc: ds:
      if all (d: d.value == null) ds then null
      else if all (d: d.value != null) ds then t.merge loc ds
      else
        throw ("The option `${lib.showOption loc}' is defined both null and "
          + "not null.");
    inherit (t) getSubOptions;
  };
  either = a: b: mk "${orOther a} or ${orOther b}" (v: a.check v || b.check v) {
    shape = "or";
    merge = loc: ds:
      if all (d: a.check d.value) ds then a.merge loc ds
      else if all (d: b.check d.value) ds then b.merge loc ds
      else lib.options.mergeEqualOption loc ds;
  };
  oneOf = ts: foldl' either (head ts) (lib.tail ts);
  listOf = t: mk "list of ${inside t}" isList {
    shape = "composite";
    merge = loc: ds: concatLists (map
      (d: lib.imap1
        (i: v: mergeDefinitions (loc ++ [ "[entry ${toString i}]" ]) t
          [ (definitions.plain v) ])
        d.value)
      ds);
    getSubOptions = prefix: t.getSubOptions (prefix ++ [ "*" ]);
  };
  nonEmptyListOf = t:
    let list = listOf t; in
    list // {
      description = "non-empty (${list.description})";
      check = l: isList l && l != [ ];
    };
  attrsOf = t: mk "attribute set of ${inside t}" isAttrs {
    shape = "composite";
    merge = loc: ds:
      lib.mapAttrs (name: mergeDefinitions (loc ++ [ name ]) t)
        (lib.filterAttrs (_: found: definitions.effective found != [ ])
          (definitions.byName ds));
    getSubOptions = prefix: t.getSubOptions (prefix ++ [ "<name>" ]);
  };
  lazyAttrsOf = attrsOf;
  coercedTo = from: convert: to:
    mk "${asNoun to} or ${asNoun from} convertible to it"
      (v: to.check v || (from.check v && to.check (convert v))) {
        shape = "or";
        merge = loc: ds: to.merge loc (map
          (d: d // {
            value = if from.check d.value then convert d.value else d.value;
          })
          ds);
        inherit (to) getSubOptions;
      };
  addCheck = t: extra: t // { check = v: t.check v && extra v; };

  submodule = m: submoduleWith { modules = lib.toList m; };
  submoduleWith = { modules, specialArgs ? { }, ... }:
    let
      evaluate = prefix: name: more: lib.evalModules {
        inherit prefix;
        modules = modules ++ more;
        specialArgs = { inherit name; } // specialArgs;
      };
    in
    mk "submodule" (v: isAttrs v || isFunction v || isPath v) {
      shape = "or";
      merge = loc: ds: (evaluate loc (lib.last loc) (map
        (d: if isAttrs d.value then { config = d.value; } else d.value)
        ds)).config;
      getSubOptions = prefix: (evaluate prefix "‹name›" [ ]).options;
    };

  mkOptionType = { name, description ? name, check ? _: true, ... }@attributes:
    mk description check (removeAttrs attributes [ "description" "check" ]);
}
