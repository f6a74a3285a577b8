# systemd.{services,sockets,timers}. Directives stay open, as on NixOS: the
# rendered units go to systemd-analyze, which knows them all.
{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  boolean = default: mkOption { type = types.bool; inherit default; };
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  lines = mkOption { type = types.lines; default = ""; };
  list = mkOption { type = types.listOf types.unspecified; default = [ ]; };
  optionalInt = mkOption { type = types.nullOr types.int; default = null; };

  # Lists are concatenated, anything else must agree.
  directive = lib.mkOptionType {
    name = "systemd option";
    merge = loc: definitions:
      let values = map (d: d.value) definitions; in
      if !lib.any lib.isList values then
        lib.options.mergeEqualOption loc definitions
      else if lib.all lib.isList values then
        lib.concatLists values
      else
        throw "${lib.showOption loc} is a list in one place and not in another";
  };
  section = mkOption { type = types.attrsOf directive; default = { }; };

  unit = {
    enable = boolean true;
    description = mkOption { type = types.singleLineStr; default = ""; };
    documentation = strings;
    requires = strings;
    wants = strings;
    after = strings;
    before = strings;
    bindsTo = strings;
    partOf = strings;
    conflicts = strings;
    requisite = strings;
    wantedBy = strings;
    requiredBy = strings;
    onFailure = strings;
    onSuccess = strings;
    aliases = strings;
    unitConfig = section;
    restartTriggers = list;
    reloadTriggers = list;
    startLimitBurst = optionalInt;
    startLimitIntervalSec = optionalInt;
  };

  # Two that NixOS looks at itself.
  isType = v: lib.elem v [
    "dbus"
    "exec"
    "forking"
    "idle"
    "notify"
    "notify-reload"
    "oneshot"
    "simple"
  ];
  isRestart = v: lib.elem v [
    "always"
    "no"
    "on-abnormal"
    "on-abort"
    "on-failure"
    "on-success"
    "on-watchdog"
  ];
  serviceConfig = types.addCheck (types.attrsOf directive) (c:
    (!builtins.isString (c.Type or null) || isType c.Type)
    && (!builtins.isString (c.Restart or null) || isRestart c.Restart));

  script = name: suffix: text:
    "${pkgs.writeShellScript "${name}-${suffix}" "set -e\n${text}"}";

  service = types.submodule ({ name, config, ... }: {
    options = unit // {
      environment = mkOption {
        type = with types; attrsOf (nullOr (oneOf [ str path package ]));
        default = { };
      };
      path = mkOption {
        type = with types; listOf (oneOf [ package str ]);
        default = [ ];
      };
      serviceConfig = mkOption { type = serviceConfig; default = { }; };
      script = lines;
      scriptArgs = mkOption { type = types.str; default = ""; };
      preStart = lines;
      postStart = lines;
      startAt = mkOption {
        type = with types; either str (listOf str);
        default = [ ];
        apply = lib.toList;
      };
      restartIfChanged = boolean true;
      reloadIfChanged = boolean false;
      stopIfChanged = boolean true;
    };
    config.serviceConfig = lib.mkMerge [
      (lib.mkIf (config.preStart != "") {
        ExecStartPre = [ (script name "pre-start" config.preStart) ];
      })
      (lib.mkIf (config.script != "") {
        ExecStart = "${script name "start" config.script} ${config.scriptArgs}";
      })
      (lib.mkIf (config.postStart != "") {
        ExecStartPost = [ (script name "post-start" config.postStart) ];
      })
    ];
  });

  socket = types.submodule {
    options = unit // {
      listenStreams = strings;
      listenDatagrams = strings;
      socketConfig = section;
    };
  };

  timer = types.submodule {
    options = unit // { timerConfig = section; };
  };
in
{
  options.systemd = {
    services = mkOption { type = types.attrsOf service; default = { }; };
    sockets = mkOption { type = types.attrsOf socket; default = { }; };
    timers = mkOption { type = types.attrsOf timer; default = { }; };
    packages = mkOption { type = types.listOf types.package; default = [ ]; };
  };
}
