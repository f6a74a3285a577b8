# The post-build-hook: which program it is, and that it is the only one.
{ lib, pkgs, config, cfg }:
let
  inherit (builtins) filter match;
  program = "${cfg.package}/bin/queued-hook";
  usual = cfg.stateDir == "/var/lib/nix-queued"
    && cfg.roots.directory == "/nix/var/nix/gcroots/arm-cache"
    && !cfg.strict;

  # The hook knows nothing but its environment, and Nix runs it without
  # arguments, from the daemon or from root's own commands.
  wrapped = pkgs.writeShellScript "queued-hook" ''
    export NIX_QUEUED_STATE_DIR=${lib.escapeShellArg cfg.stateDir}
    export NIX_QUEUED_ROOTS_DIR=${lib.escapeShellArg cfg.roots.directory}
    export NIX_QUEUED_STRICT=${if cfg.strict then "1" else "0"}
    exec ${program}
  '';
  hook = if usual then program else "${wrapped}";

  scripts = lib.optionals cfg.legacyScripts.enable
    [ "nix/pin-arm-cache.sh" "nix/upload-to-cache.sh" ];
  ours = [ hook ] ++ map (name: "/etc/${name}") scripts;

  inSettings = toString (config.nix.settings.post-build-hook or "");
  inText = filter
    (line: match "[ \t]*post-build-hook[ \t]*=.*" line != null)
    (lib.splitString "\n" config.nix.extraOptions);

  two = other: ''
    Nix runs one post-build-hook, and there are two:
    ${other} and
    ${hook} (services.nix-queued).
    Remove the first, or call the second at its end and set
    services.nix-queued.installHook = false.
  '';

  theOnlyOne = [
    {
      assertion = lib.elem inSettings ours;
      message = two "${inSettings} (nix.settings.post-build-hook)";
    }
    {
      assertion = inText == [ ];
      message = two "${lib.concatStrings inText} (nix.extraOptions)";
    }
  ];

  # As with an installer that keeps nix.conf to itself.
  notOurs = {
    assertion = false;
    message = ''
      services.nix-queued.installHook: nix.conf is not written here
      (nix.enable = false). Put
      post-build-hook = ${hook}
      into it, or into nix.custom.conf beside it, and set
      services.nix-queued.installHook = false.
    '';
  };
in
{
  # Gives way to anything else, for the assertion to tell.
  settings = lib.mkIf (cfg.installHook && config.nix.enable) {
    post-build-hook = lib.mkDefault hook;
  };

  # { name below /etc = program; }
  scripts = lib.genAttrs scripts
    (_: pkgs.writeShellScript "queued-hook-by-another-name" "exec ${hook}\n");

  assertions = lib.optionals cfg.installHook
    (if config.nix.enable then theOnlyOne else [ notOurs ]);
}
