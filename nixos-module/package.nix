# The three programs, their manuals, completions and units.
#
# The hook is linked statically where that is possible (see CMakeLists.txt),
# for which it is built apart, with static libraries. Of the tests those run
# that need neither a network nor a Nix, other users or programs.
{
  lib,
  stdenv,
  cmake,
  ninja,
  pkg-config,
  python3,
  abseil-cpp,
  cli11,
  curl,
  glibc,
  gtest,
  libsodium,
  nlohmann_json,
  openssl,
  sqlite,
  tomlplusplus,
  xz,
  zstd,
  staticHook ? stdenv.hostPlatform.isLinux && stdenv.hostPlatform.isGnu,
}:
let
  leftOut = [ ".git" "build" "nixos-module" "result" ];

  common = {
    version = "0.1.0";
    src = builtins.path {
      name = "nix-queued-source";
      path = ../.;
      filter = path: _: !(builtins.elem (baseNameOf path) leftOut);
    };
    nativeBuildInputs = [ cmake ninja pkg-config python3 ];
    strictDeps = true;
  };

  libraries = [
    cli11
    curl
    libsodium
    nlohmann_json
    openssl
    tomlplusplus
    xz
    zstd
  ];

  hook = stdenv.mkDerivation (common // {
    pname = "queued-hook";
    buildInputs = libraries ++ [
      (abseil-cpp.override { static = true; })
      (sqlite.overrideAttrs (_: { dontDisableStatic = true; }))
      glibc.static
    ];
    cmakeFlags = [ "-DNIXQ_STATIC_HOOK=ON" "-DNIXQ_BUILD_TESTS=OFF" ];
    ninjaFlags = [ "queued-hook" ];
    installPhase = ''
      runHook preInstall
      install -D bin/queued-hook $out/bin/queued-hook
      runHook postInstall
    '';
  });

  doCheck = stdenv.buildPlatform.canExecute stdenv.hostPlatform;
  tests = "^(storage/base|storage/queue|queued|fuzz)/";
  needMore = "/(SubprocessTest|People|Readers)[./]";
in
stdenv.mkDerivation (common // {
  pname = "nix-queued";
  buildInputs = libraries ++ [ abseil-cpp sqlite ]
    ++ lib.optionals doCheck [ gtest ];
  cmakeFlags = [
    "-DNIXQ_STATIC_HOOK=OFF"
    "-DNIXQ_BUILD_TESTS=${if doCheck then "ON" else "OFF"}"
  ];

  inherit doCheck;
  checkPhase = ''
    runHook preCheck
    ctest --output-on-failure --tests-regex '${tests}' \
      --exclude-regex '${needMore}'
    runHook postCheck
  '';

  postInstall = lib.optionalString staticHook ''
    install ${hook}/bin/queued-hook $out/bin/queued-hook
  '';

  passthru = lib.optionalAttrs staticHook { inherit hook; };
  meta = {
    description = "Signs, uploads and pins what Nix builds, behind the hook";
    license = lib.licenses.mit;
    mainProgram = "queuectl";
    platforms = lib.platforms.unix;
  };
})
