# From a configuration to the text that a machine reads: units, nix.conf,
# files below /etc. Follows what NixOS writes, except that [Install] sections
# are printed instead of turned into links, so that units can be used elsewhere.
{ lib, pkgs }:
let
  value = v: if lib.isBool v then lib.boolToString v else toString v;

  lines = key: v:
    if v == null then ""
    else if lib.isList v then lib.concatMapStrings (lines key) v
    else "${key}=${value v}\n";

  section = name: keys:
    let text = lib.concatStrings (lib.mapAttrsToList lines keys);
    in lib.optionalString (text != "") "[${name}]\n${text}\n";

  # `key = []` resets what a drop-in's base had: "Key=".
  withResets = lib.mapAttrs (_: v: if v == [ ] then [ "" ] else v);

  words = list: if list == [ ] then null else lib.concatStringsSep " " list;

  unitSection = u: section "Unit" ({
    Description = if u.description == "" then null else u.description;
    Documentation = words u.documentation;
    Requires = words u.requires;
    Wants = words u.wants;
    After = words u.after;
    Before = words u.before;
    BindsTo = words u.bindsTo;
    PartOf = words u.partOf;
    Conflicts = words u.conflicts;
    OnFailure = words u.onFailure;
    StartLimitIntervalSec = u.startLimitIntervalSec;
    StartLimitBurst = u.startLimitBurst;
  } // withResets u.unitConfig);

  install = u: section "Install" {
    WantedBy = words u.wantedBy;
    RequiredBy = words u.requiredBy;
    Alias = words u.aliases;
  };

  searchPath = path:
    lib.concatMapStringsSep ":" (p: "${p}/bin") path + ":"
    + lib.concatMapStringsSep ":" (p: "${p}/sbin") path;

  # What every service of NixOS has on its PATH.
  always = with pkgs; [ coreutils findutils gnugrep gnused systemd ];

  environment = u:
    lib.mapAttrsToList (name: v: builtins.toJSON "${name}=${toString v}") (
      lib.filterAttrs (_: v: v != null)
        ({ PATH = searchPath (u.path ++ always); } // u.environment));

  service = u: unitSection u
    + section "Service"
      ({ Environment = environment u; } // withResets u.serviceConfig)
    + install u;

  socket = u: unitSection u
    + section "Socket" ({
        ListenStream = u.listenStreams;
        ListenDatagram = u.listenDatagrams;
      } // withResets u.socketConfig)
    + install u;

  timer = u:
    unitSection u + section "Timer" (withResets u.timerConfig) + install u;

  ofKind = suffix: render: units:
    lib.mapAttrs' (name: u: lib.nameValuePair "${name}.${suffix}" (render u))
      (lib.filterAttrs (_: u: u.enable) units);

  setting = v:
    if lib.isList v then lib.concatMapStringsSep " " value v else value v;

  # A property list. null is what was not said.
  plist = v:
    if lib.isBool v then "<${lib.boolToString v}/>"
    else if lib.isInt v then "<integer>${toString v}</integer>"
    else if lib.isList v then "<array>${lib.concatMapStrings plist v}</array>"
    else if lib.isAttrs v && !(lib.isDerivation v) then
      "<dict>${lib.concatStrings (lib.mapAttrsToList plistEntry v)}</dict>"
    else "<string>${escapeXml (toString v)}</string>";
  plistEntry = key: v:
    lib.optionalString (v != null) "<key>${escapeXml key}</key>${plist v}";
  escapeXml = lib.replaceStrings [ "&" "<" ">" ] [ "&amp;" "&lt;" "&gt;" ];

  tmpfile = path: type: a: lib.concatStringsSep " "
    [ type path a.mode a.user a.group a.age a.argument ];
in
{
  units = systemd:
    ofKind "service" service systemd.services
    // ofKind "socket" socket systemd.sockets
    // ofKind "timer" timer systemd.timers;

  # The real nix-darwin has written them itself.
  plists = config:
    if config.environment ? launchDaemons then
      lib.mapAttrs (_: file: file.text) config.environment.launchDaemons
    else
      lib.mapAttrs' (_: daemon: lib.nameValuePair
        "${daemon.serviceConfig.Label}.plist"
        "<plist version=\"1.0\">${plist daemon.serviceConfig}</plist>")
        config.launchd.daemons;

  nixConf = settings: lib.concatStrings (lib.mapAttrsToList
    (key: v: "${key} = ${setting v}\n")
    (lib.filterAttrs (_: v: v != null) settings));

  etc = files: lib.mapAttrs'
    (_: f:
      let hasText = f.text != null && f.text != ""; in
      lib.nameValuePair f.target {
        mode = f.mode or "symlink";
        # Either the text, or the store path that has it.
        text = if hasText then f.text else null;
        source = if hasText then null else "${f.source}";
        # What looks at it when it is built.
        check = if hasText then null else f.source.checkPhase or null;
      })
    (lib.filterAttrs (_: f: f.enable) files);

  tmpfiles = t:
    let ofPath = path: lib.mapAttrsToList (tmpfile path); in
    t.rules ++ lib.flatten
      (lib.mapAttrsToList (_: lib.mapAttrsToList ofPath) t.settings);
}
