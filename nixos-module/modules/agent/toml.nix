# A value as the text of a TOML file. Pure, so that what is evaluated is what
# is written, without a program in between.
#
# Attributes become keys and [tables], lists of attribute sets become
# [[arrays of tables]] at the top and inline tables below; null is left out.
lib:
let
  inherit (builtins)
    all
    concatLists
    filter
    isAttrs
    isBool
    isFloat
    isInt
    isList
    match
    toJSON
    ;

  isTable = v: isAttrs v && !(lib.isDerivation v);
  isTables = v: isList v && v != [ ] && all isTable v;
  withoutNulls = lib.filterAttrs (_: v: v != null);

  # JSON escapes what TOML's strings have to escape, in the same way.
  key = k: if match "[A-Za-z0-9_-]+" k != null then k else toJSON k;

  inline = v:
    if isBool v then lib.boolToString v
    else if isInt v || isFloat v then toJSON v
    else if isList v then "[${lib.concatMapStringsSep ", " inline v}]"
    else if isTable v then "{ ${lib.concatStringsSep ", " (pairs v)} }"
    else toJSON "${v}";

  pairs = table: lib.mapAttrsToList (k: v: "${key k} = ${inline v}")
    (withoutNulls table);

  # The lines of a table whose own name is `path`.
  body = path: table:
    let
      kept = withoutNulls table;
      own = lib.filterAttrs (_: v: !(isTable v) && !(isTables v)) kept;
      inner = lib.filterAttrs (_: v: isTable v || isTables v) kept;
    in
    pairs own
    ++ concatLists (lib.mapAttrsToList (k: section (path ++ [ k ])) inner);

  section = path: v:
    let name = lib.concatMapStringsSep "." key path; in
    if isTables v then
      concatLists (map (item: [ "" "[[${name}]]" ] ++ body path item) v)
    else
      [ "" "[${name}]" ] ++ body path v;
in
table: lib.concatMapStrings (line: line + "\n") (body [ ] table)
