# evalModules: many modules, one configuration.
lib:
let
  definitions = import ./definitions.nix;
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    filter
    foldl'
    functionArgs
    genericClosure
    head
    intersectAttrs
    isFunction
    isPath
    isString
    length
    mapAttrs
    removeAttrs
    ;
  inherit (lib) isOption showOption;

  # --- From a file, function or attribute set to a module's parts.

  load = arguments: m:
    if isPath m || isString m then
      load arguments (import m)
    else if isFunction m then
      let wanted = functionArgs m; in
      m (if wanted == { } then arguments else intersectAttrs wanted arguments)
    else
      m;

  parts = m:
    let
      structured = m ? config || m ? options || m ? freeformType;
      shorthand = removeAttrs m [ "_class" "_file" "key" "imports" ];
      extra = if m ? meta then [ { inherit (m) meta; } ] else [ ];
    in
    {
      class = m._class or null;
      imports = m.imports or [ ];
      options = m.options or { };
      freeform = m.freeformType or null;
      config =
        if structured then
          definitions.mkMerge ([ (m.config or { }) ] ++ extra)
        else
          shorthand;
    };

  # Every module once, imported ones first: the order of the real lib.
  collect = arguments: class: modules:
    let
      item = parent: index: m: {
        key =
          if isPath m || isString m then
            toString m
          else
            "${parent}:${toString index}";
        module = parts (load arguments m);
      };
      found = genericClosure {
        startSet = lib.imap1 (item "") modules;
        operator = m: lib.imap1 (item m.key) m.module.imports;
      };
      right = m:
        if m.class == null || class == null || m.class == class then
          m
        else
          throw ("The module of class \"${m.class}\" cannot be imported into a "
            + "module evaluation that expects class \"${class}\".");
    in
    lib.reverseList (map (x: right x.module) found);

  # --- Declarations.

  declare = loc: a: b:
    if isOption a || isOption b then
      throw "The option `${showOption loc}' is declared more than once."
    else
      a // mapAttrs (name: v:
        if a ? ${name} then declare (loc ++ [ name ]) a.${name} v else v) b;

  # --- Values: options in, { option, value } for each out.

  evalOption = loc: option: ds:
    let
      type = option.type or lib.types.unspecified;
      default =
        if option ? default then
          [ (definitions.plain option.default // { priority = 1500; }) ]
        else
          [ ];
      given = definitions.effective ds;
      merged = lib.mergeDefinitions loc type (ds ++ default);
    in
    option // {
      inherit loc;
      isDefined = given ++ default != [ ];
      highestPrio = (head (given ++ default)).priority;
      definitions = ds;
      value =
        if option.readOnly or false && length (given ++ default) > 1 then
          throw "The option `${showOption loc}' is read-only, but it is set."
        else
          (option.apply or (v: v)) merged;
    };

  evalTree = loc: options: ds:
    let found = definitions.byName ds; in
    mapAttrs
      (name: o:
        let evaluate = if isOption o then evalOption else evalTree; in
        evaluate (loc ++ [ name ]) o (found.${name} or [ ]))
      options;

  configOf = mapAttrs (_: o: if isOption o then o.value else configOf o);

  # Definitions of what no option declares, each as a set from the root.
  undeclared = options: ds:
    let
      found = definitions.byName ds;
      below = name: map (d: d // { value = { ${name} = d.value; }; });
    in
    concatLists (map
      (name:
        if !(options ? ${name}) then
          below name found.${name}
        else if isOption options.${name} then
          [ ]
        else
          below name (undeclared options.${name} found.${name}))
      (attrNames found));

  firstPath = v:
    let
      name = head (attrNames v);
      isOne = lib.isAttrs v && length (attrNames v) == 1;
    in
    if isOne && definitions.kind v == "" then
      [ name ] ++ firstPath v.${name}
    else
      [ ];

  # Where the first of them is, as far as its options exist.
  nameOf = options: path:
    if path == [ ] then
      [ ]
    else if options ? ${head path} && !isOption options.${head path} then
      [ (head path) ] ++ nameOf options.${head path} (lib.tail path)
    else
      [ (head path) ];
in
{
  evalModules =
    {
      modules,
      specialArgs ? { },
      class ? null,
      prefix ? [ ],
    }:
    let
      arguments = { inherit lib config options; } // specialArgs;
      all = collect arguments class modules;
      declared = foldl' (declare prefix) { } (map (m: m.options) all);
      ds = map (m: definitions.plain m.config) all;
      options = evalTree prefix declared ds;
      freeform = lib.findFirst (type: type != null) null
        (map (m: m.freeform) (lib.reverseList all));
      loose = undeclared declared ds;
      config =
        if freeform == null then
          configOf options
        else
          lib.recursiveUpdate
            (lib.optionalAttrs (loose != [ ])
              (lib.mergeDefinitions prefix freeform loose))
            (configOf options);
      first = nameOf declared (firstPath (head loose).value);
    in
    {
      inherit options;
      config =
        if freeform == null && loose != [ ] then
          throw "The option `${showOption (prefix ++ first)}' does not exist."
        else
          config;
    };
}
