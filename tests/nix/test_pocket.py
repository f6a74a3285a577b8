"""The pocket module system says what the real one says."""

import unittest

import support

PRELUDE = """
let
  inherit (lib) mkOption types mkIf mkMerge mkForce mkDefault mkBefore;
  option = type: mkOption { inherit type; };
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  configOf = modules: (lib.evalModules { inherit modules; }).config;
  one = type: values: (configOf ([ { options.x = option type; } ]
    ++ map (x: { inherit x; }) values)).x;
in
"""

VALUES = {
    # Imported modules come first, the list of modules backwards.
    """(configOf [
         { imports = [ { x = [ "ia" ]; } { x = [ "ib" ]; } ];
           options.x = strings; config.x = [ "a" ]; }
         { x = [ "b" ]; imports = [ { x = [ "c" ]; } ]; }
       ]).x""": ["c", "ib", "ia", "b", "a"],
    'one (types.listOf types.str) [ [ "a" ] (mkBefore [ "b" ]) ]': ["b", "a"],
    "one types.int [ 1 (mkForce 2) (mkDefault 3) ]": 2,
    'one types.lines [ "b" "a" ]': "a\nb",
    "one (types.nullOr types.int) [ null ]": None,
    "one (types.attrsOf types.int) [ { a = 1; } { b = mkIf false 1; } ]":
        {"a": 1},
    "one (types.either types.int types.str) [ \"1\" ]": "1",
    "one (types.coercedTo types.int toString types.str) [ 1 ]": "1",
    'one types.anything [ { a.b = 1; } { a.c = 2; } ]': {"a": {"b": 1, "c": 2}},
    # A condition may depend on another option of the same set.
    """configOf [
         { options.a = option types.bool; options.b = option types.int; }
         ({ config, ... }: { config = mkMerge [
             { a = true; } (mkIf config.a { b = 1; }) ]; })
       ]""": {"a": True, "b": 1},
    """one (types.attrsOf (types.submodule ({ name, ... }: {
         options.name = mkOption { type = types.str; default = name; };
         options.n = mkOption { type = types.int; default = 7; };
       }))) [ { a = { }; b.n = 8; } { b.name = "c"; } ]""":
        {"a": {"name": "a", "n": 7}, "b": {"name": "c", "n": 8}},
    """one (types.submodule { freeformType = types.attrsOf types.anything;
         options.deep.known = mkOption { type = types.int; default = 1; };
       }) [ { deep.other = 2; } { free = 3; } ]""":
        {"deep": {"known": 1, "other": 2}, "free": 3},
    # Files are modules once, however often they are imported.
    """(configOf [
         { options.x = strings; imports = [ file file ]; } file
       ]).x""": ["file"],
    # Lists are merged with their default only if that has their priority.
    """(configOf [ { options.x = mkOption { type = types.listOf types.int;
         default = [ 1 ]; }; } { x = [ 2 ]; } ]).x""": [2],
    """(configOf [ { options.x = mkOption { type = types.int; default = 1;
         apply = x: x + 1; }; } ]).x""": 2,
    """let e = lib.evalModules { modules = [ { options.x = option types.int;
         options.y = strings; } { x = mkDefault 3; } ]; };
       in [ e.options.x.isDefined e.options.x.highestPrio (e.options ? z) ]""":
        [True, 1000, False],
    """let c = configOf [
         { options.new.x = option types.int; options.warnings = strings; }
         (lib.mkRenamedOptionModule [ "old" "x" ] [ "new" "x" ])
         { old.x = 5; } ];
       in [ c.new.x c.old.x (lib.length c.warnings) ]""": [5, 5, 1],
    """let c = configOf [
         { options.new = option (types.submodule { options.a = option types.int;
           options.b = option types.int; }); }
         (lib.mkAliasOptionModule [ "old" ] [ "new" ])
         { old.a = mkDefault 5; new.b = 6; } { old.a = 7; } ];
       in [ c.new c.old ]""": [{"a": 7, "b": 6}] * 2,
    """(configOf [
         { options.assertions = option types.unspecified; }
         (lib.mkRemovedOptionModule [ "gone" ] "Use another.")
       ]).assertions == [ ] || true""": True,
    'lib.escapeShellArgs [ "a b" "c" "d\'e" ]': "'a b' c 'd'\\''e'",
    'lib.splitString "." "a.b"': ["a", "b"],
    'lib.removeSuffix "/" "a/"': "a",
    'lib.hasInfix "b+" "ab+c"': True,
    'lib.recursiveUpdate { a.b = 1; } { a.c = 2; }': {"a": {"b": 1, "c": 2}},
    'lib.imap1 (i: v: "${toString i}${v}") [ "a" "b" ]': ["1a", "2b"],
    'lib.concatMapAttrs (n: v: { "${n}x" = v; }) { a = 1; }': {"ax": 1},
}

ERRORS = {
    'one types.str [ 5 ]':
        "A definition for option `x' is not of type `string'",
    'one (types.enum [ "a" "b" ]) [ "c" ]': 'of type `one of "a", "b"\'',
    'one (types.listOf types.port) [ [ 1 ] [ 70000 ] ]':
        "is not of type `16 bit unsigned integer; between 0 and 65535",
    'one types.int [ 1 2 ]':
        "The option `x' has conflicting definition values:",
    'one types.int [ ]': "The option `x' was accessed but has no value defined",
    'configOf [ { options.x.y = strings; } { x.z = 1; } ]':
        "The option `x.z' does not exist",
    "one (types.submodule { options.a = strings; }) [ { b = 1; } ]":
        "The option `x.b' does not exist",
    'one (types.attrsOf (types.submodule { options.a = option types.str; }))'
    ' [ { n = { }; } ]':
        "The option `x.n.a' was accessed but has no value defined",
    '(configOf [ { options.x = mkOption { readOnly = true; default = 1; }; }'
    ' { x = 2; } ]).x': "The option `x' is read-only",
    '(lib.evalModules { class = "nixos"; modules = [ { _class = "darwin"; } ];'
    ' }).config': 'cannot be imported into a module evaluation',
}

DESCRIPTIONS = {
    "str": "string",
    "port": "16 bit unsigned integer; between 0 and 65535 (both inclusive)",
    "nullOr (listOf str)": "null or (list of string)",
    "listOf (either str int)": "list of (string or signed integer)",
    "nullOr (either str int)": "null or string or signed integer",
    "attrsOf (submodule { })": "attribute set of (submodule)",
    "attrsOf (nullOr str)": "attribute set of (null or string)",
    "listOf (listOf str)": "list of list of string",
    'enum [ "a" "b" ]': 'one of "a", "b"',
    "lines": 'strings concatenated with "\\n"',
    "coercedTo str (x: x) (listOf str)":
        "(list of string) or string convertible to it",
    "ints.positive": "positive integer, meaning >0",
}


def libraries():
    found = {"pocket": f"import {support.HERE}/pocket"}
    real = support.nixpkgs_lib()
    if real:
        found["nixpkgs"] = f"import {real}"
    return found


class Agreement(unittest.TestCase):

    def evaluate(self, lib, expression):
        file = 'builtins.toFile "module.nix" "{ x = [ \\"file\\" ]; }"'
        return support.nix_value(
            f"let lib = {lib}; file = {file}; in {PRELUDE} {expression}")

    def each(self, table, check):
        for where, lib in libraries().items():
            for expression, expected in table.items():
                with self.subTest(expression, where=where):
                    check(lib, expression, expected)

    def test_values(self):
        self.each(VALUES, lambda lib, expression, expected: self.assertEqual(
            expected, self.evaluate(lib, expression)))

    def test_descriptions(self):
        self.each(DESCRIPTIONS, lambda lib, type_, expected: self.assertEqual(
            expected, self.evaluate(
                lib, f"with types; ({type_}).description")))

    def test_errors(self):
        self.each(ERRORS, self.check_error)

    def check_error(self, lib, expression, expected):
        with self.assertRaises(support.EvaluationFailed) as caught:
            self.evaluate(lib, expression)
        self.assertIn(expected, support.one_line(str(caught.exception)))


if __name__ == "__main__":
    unittest.main()
