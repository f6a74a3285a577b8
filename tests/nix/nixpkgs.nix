# What the flake at the top gets in place of nixpkgs: derivations that name
# what they are made of, and are never built.
let
  lib = import ./pocket;
  systems = [
    "aarch64-darwin"
    "aarch64-linux"
    "x86_64-darwin"
    "x86_64-linux"
  ];
  libraries = [
    "abseil-cpp"
    "cli11"
    "cmake"
    "glibc"
    "gtest"
    "libsodium"
    "ninja"
    "nlohmann_json"
    "openssl"
    "pkg-config"
    "python3"
    "tomlplusplus"
    "xz"
    "zstd"
  ];

  packagesFor = system:
    let
      base = import ./pkgs.nix { inherit lib system; };
      make = arguments:
        derivation {
          name = arguments.name or arguments.pname;
          inherit system;
          builder = "/bin/sh";
        }
        // arguments
        // { inherit arguments; };
      pkgs = base // lib.genAttrs libraries (pname: make { inherit pname; } // {
        static = "${pname}-static";
        override = _: pkgs.${pname};
      }) // {
        stdenv = base.stdenv // {
          mkDerivation = make;
          hostPlatform = base.stdenv.hostPlatform // {
            isGnu = lib.hasSuffix "-linux" system;
          };
        };
        runCommand = name: arguments: text:
          make (arguments // { inherit name text; });
        mkShell = arguments: make (arguments // { name = "shell"; });
        callPackage = file: arguments:
          let function = import file; in
          function (
            builtins.intersectAttrs (builtins.functionArgs function) pkgs
            // arguments);
      };
    in
    pkgs;
in
{
  inherit lib;
  legacyPackages = lib.genAttrs systems packagesFor;
}
