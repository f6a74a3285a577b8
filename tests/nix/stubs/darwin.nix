# The slice of nix-darwin's options that our modules touch.
{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  optional = type: mkOption { type = types.nullOr type; default = null; };
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  file = types.submodule ({ name, ... }: {
    options = {
      enable = mkOption { type = types.bool; default = true; };
      target = mkOption { type = types.str; default = name; };
      text = mkOption { type = types.lines; default = ""; };
      source = optional types.path;
      knownSha256Hashes = strings;
    };
  });

  user = types.submodule ({ name, ... }: {
    options = {
      name = mkOption { type = types.str; default = name; };
      description = optional types.nonEmptyStr;
      uid = mkOption { type = types.int; };
      gid = mkOption { type = types.int; default = 20; };
      isHidden = mkOption { type = types.bool; default = true; };
      home = optional types.path;
      createHome = mkOption { type = types.bool; default = false; };
      shell = optional types.path;
    };
  });

  group = types.submodule ({ name, ... }: {
    options = {
      name = mkOption { type = types.str; default = name; };
      gid = mkOption { type = types.int; };
      members = strings;
      description = mkOption { type = types.str; default = ""; };
    };
  });

  calendar = types.submodule {
    options = lib.genAttrs [ "Minute" "Hour" "Day" "Weekday" "Month" ]
      (_: optional types.int);
  };

  limits = types.submodule {
    options = lib.genAttrs [ "Core" "NumberOfFiles" ] (_: optional types.int);
  };

  keepAlive = types.submodule {
    options.SuccessfulExit = optional types.bool;
    options.PathState = optional (types.attrsOf types.bool);
  };

  # Keys of launchd.plist(5).
  job = types.submodule {
    options = {
      Label = optional types.str;
      UserName = optional types.str;
      GroupName = optional types.str;
      InitGroups = optional types.bool;
      Program = optional types.path;
      ProgramArguments = optional (types.listOf types.str);
      EnvironmentVariables = optional (types.attrsOf types.str);
      KeepAlive = optional (types.either types.bool keepAlive);
      RunAtLoad = optional types.bool;
      WorkingDirectory = optional types.str;
      Umask = optional types.int;
      ExitTimeOut = optional types.int;
      ThrottleInterval = optional types.int;
      StartInterval = optional types.int;
      StartCalendarInterval = optional (types.nonEmptyListOf calendar);
      WatchPaths = optional (types.listOf types.path);
      StandardOutPath = optional types.path;
      StandardErrorPath = optional types.path;
      SoftResourceLimits = optional limits;
      HardResourceLimits = optional limits;
      Nice = optional types.int;
      ProcessType = optional (types.enum [
        "Background"
        "Standard"
        "Adaptive"
        "Interactive"
      ]);
      LowPriorityIO = optional types.bool;
      LowPriorityBackgroundIO = optional types.bool;
      AbandonProcessGroup = optional types.bool;
    };
  };

  # As nix-darwin does: the command waits for the store's volume.
  daemon = types.submodule ({ name, config, ... }: {
    options = {
      environment = mkOption { type = types.attrsOf types.str; default = { }; };
      path = mkOption {
        type = types.listOf (types.either types.path types.str);
        default = [ ];
      };
      command = mkOption {
        type = types.either types.str types.path;
        default = "";
      };
      script = mkOption { type = types.lines; default = ""; };
      serviceConfig = mkOption { type = job; default = { }; };
    };
    config = {
      command = lib.mkIf (config.script != "")
        "${pkgs.writeScript "${name}-start" config.script}";
      serviceConfig = {
        Label = lib.mkDefault "org.nixos.${name}";
        ProgramArguments = lib.mkIf (config.command != "") [
          "/bin/sh"
          "-c"
          "/bin/wait4path /nix/store && exec ${config.command}"
        ];
        EnvironmentVariables =
          let
            all = config.environment // lib.optionalAttrs (config.path != [ ]) {
              PATH = lib.concatMapStringsSep ":"
                (p: if lib.isDerivation p then "${p}/bin" else p) config.path;
            };
          in
          lib.mkIf (all != { }) all;
      };
    };
  });

  script = types.submodule {
    options.text = mkOption { type = types.lines; default = ""; };
  };
in
{
  imports = [ ./common.nix ];

  options = {
    environment.etc = mkOption { type = types.attrsOf file; default = { }; };
    launchd.daemons = mkOption { type = types.attrsOf daemon; default = { }; };
    users = {
      users = mkOption { type = types.attrsOf user; default = { }; };
      groups = mkOption { type = types.attrsOf group; default = { }; };
      knownUsers = strings;
      knownGroups = strings;
    };
    system.activationScripts = mkOption {
      type = types.attrsOf script;
      default = { };
    };
    nix.gc = {
      automatic = mkOption { type = types.bool; default = false; };
      interval = mkOption {
        type = types.listOf calendar;
        default = [ { Weekday = 7; Hour = 3; Minute = 15; } ];
      };
      options = mkOption { type = types.str; default = ""; };
    };
  };
}
