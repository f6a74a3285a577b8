# Lists, attribute sets and strings: no modules in here.
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    elemAt
    foldl'
    genList
    head
    isAttrs
    isList
    length
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    stringLength
    substring
    tail
    ;
in
rec {
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    functionArgs
    genList
    hasAttr
    head
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    removeAttrs
    replaceStrings
    splitVersion
    stringLength
    substring
    tail
    toJSON
    ;

  # --- Lists.
  optional = condition: v: if condition then [ v ] else [ ];
  optionals = condition: list: if condition then list else [ ];
  toList = v: if isList v then v else [ v ];
  singleton = v: [ v ];
  flatten = v: if isList v then concatMap flatten v else [ v ];
  unique = foldl'
    (found: v: if elem v found then found else found ++ [ v ]) [ ];
  last = list: elemAt list (length list - 1);
  reverseList = list:
    let n = length list; in genList (i: elemAt list (n - i - 1)) n;
  imap0 = f: list: genList (i: f i (elemAt list i)) (length list);
  imap1 = f: list: genList (i: f (i + 1) (elemAt list i)) (length list);
  findFirst = good: default: list:
    let found = builtins.filter good list; in
    if found == [ ] then default else head found;

  # --- Attribute sets.
  nameValuePair = name: value: { inherit name value; };
  optionalAttrs = condition: set: if condition then set else { };
  filterAttrs = good: set: listToAttrs (concatMap
    (name: optional (good name set.${name}) (nameValuePair name set.${name}))
    (attrNames set));
  mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  genAttrs = names: f:
    listToAttrs (map (name: nameValuePair name (f name)) names);
  concatMapAttrs = f: set: foldl' (a: b: a // b) { } (mapAttrsToList f set);
  attrByPath = path: default: set:
    if path == [ ] then
      set
    else if isAttrs set && set ? ${head path} then
      attrByPath (tail path) default set.${head path}
    else
      default;
  hasAttrByPath = path: set:
    path == [ ]
    || (isAttrs set
      && set ? ${head path}
      && hasAttrByPath (tail path) set.${head path});
  setAttrByPath = path: value:
    foldl' (v: name: { ${name} = v; }) value (reverseList path);
  getAttrFromPath = path:
    attrByPath path (throw "no ${concatStringsSep "." path}");
  recursiveUpdate = a: b: a // mapAttrs
    (name: v:
      if a ? ${name} && isAttrs a.${name} && isAttrs v then
        recursiveUpdate a.${name} v
      else
        v)
    b;

  # --- Strings.
  optionalString = condition: s: if condition then s else "";
  concatStrings = concatStringsSep "";
  concatMapStrings = f: list: concatStrings (map f list);
  concatMapStringsSep = separator: f: list:
    concatStringsSep separator (map f list);
  concatLines = concatMapStrings (line: line + "\n");
  boolToString = b: if b then "true" else "false";
  hasPrefix = prefix: s: substring 0 (stringLength prefix) s == prefix;
  hasSuffix = suffix: s:
    let
      n = stringLength s;
      m = stringLength suffix;
    in
    n >= m && substring (n - m) m s == suffix;
  hasInfix = infix: s: replaceStrings [ infix ] [ "" ] s != s;
  removePrefix = prefix: s:
    if hasPrefix prefix s then
      substring (stringLength prefix) (stringLength s) s
    else
      s;
  removeSuffix = suffix: s:
    if hasSuffix suffix s then
      substring 0 (stringLength s - stringLength suffix) s
    else
      s;
  stringToCharacters = s: genList (i: substring i 1 s) (stringLength s);
  splitString = separator: s: builtins.filter builtins.isString
    (builtins.split (escapeRegex separator) s);
  escapeRegex =
    let special = stringToCharacters "\\.[]+*?()|^$" ++ [ "{" "}" ]; in
    replaceStrings special (map (c: "\\" + c) special);
  escapeShellArg = a:
    let s = toString a; in
    if match "[[:alnum:],._+:@%/-]+" s != null then s
    else "'" + replaceStrings [ "'" ] [ "'\\''" ] s + "'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  toLower = replaceStrings
    (stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    (stringToCharacters "abcdefghijklmnopqrstuvwxyz");
  versionAtLeast = a: b: builtins.compareVersions a b >= 0;
  versionOlder = a: b: builtins.compareVersions a b < 0;

  # --- Packages.
  isDerivation = v: isAttrs v && (v.type or "") == "derivation";
  isStorePath = v: hasPrefix "/nix/store/" (toString v);
  getExe' = package: name: "${package}/bin/${name}";
  getExe = package: getExe' package (package.meta.mainProgram or package.pname);
  getVersion = package: package.version or "";
  makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");

  # --- The rest.
  id = v: v;
  const = v: _: v;
  flip = f: a: b: f b a;
  pipe = foldl' (v: f: f v);
  importJSON = file: builtins.fromJSON (builtins.readFile file);
  fileContents = file: removeSuffix "\n" (builtins.readFile file);
  warn = message: v: builtins.trace "warning: ${message}" v;
  assertMsg = condition: message: if condition then true else throw message;
}
