# What several modules say about one option, and how it becomes one value.
#
# A definition is { priority, order, value }. Its value may be wrapped by
# mkIf, mkMerge, mkOverride and mkOrder, at any depth.
let
  inherit (builtins) all concatMap filter foldl' isAttrs mapAttrs sort;

  kind = v: if isAttrs v then v._type or "" else "";

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOrder = priority: content: { _type = "order"; inherit priority content; };
in
rec {
  inherit kind mkIf mkMerge mkOverride mkOrder;
  mkForce = mkOverride 50;
  mkDefault = mkOverride 1000;
  mkOptionDefault = mkOverride 1500;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;

  plain = value: {
    priority = 100;
    order = 1000;
    inherit value;
  };

  # The definitions that one comes to when its wrappers are off.
  unwrap = d:
    let
      v = d.value;
      inner = { value = v.content; };
    in
    {
      "if" = if v.condition then unwrap (d // inner) else [ ];
      merge = concatMap (value: unwrap (d // { inherit value; })) v.contents;
      override = unwrap (d // inner // { inherit (v) priority; });
      order = unwrap (d // inner // { order = v.priority; });
    }
    .${kind v} or [ d ];

  # The attribute sets that one comes to, with its wrappers around their
  # attributes: no condition is looked at, so it may depend on the result.
  pushDown = d:
    let
      v = d.value;
      around = wrap: concatMap
        (inner: [ (inner // { value = mapAttrs (_: wrap) inner.value; }) ])
        (pushDown (d // { value = v.content; }));
    in
    {
      "if" = around (mkIf v.condition);
      merge = concatMap (value: pushDown (d // { inherit value; })) v.contents;
      override = around (mkOverride v.priority);
      order = around (mkOrder v.priority);
    }
    .${kind v} or [ d ];

  # { name = [ definition ]; } of definitions of an attribute set.
  byName = definitions:
    let
      sets = concatMap pushDown definitions;
      names = foldl' (a: d: a // d.value) { } sets;
    in
    mapAttrs
      (name: _: map
        (d: d // { value = d.value.${name}; })
        (filter (d: d.value ? ${name}) sets))
      names;

  # Those that count: of the best (lowest) priority, in order.
  effective = definitions:
    let
      found = concatMap unwrap definitions;
      best = foldl' (a: d: if d.priority < a then d.priority else a) 9999 found;
    in
    sort (a: b: a.order < b.order) (filter (d: d.priority == best) found);

  same = definitions:
    all (d: d.value == (builtins.head definitions).value) definitions;
}
