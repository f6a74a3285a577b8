# services.nix-queued on NixOS: the daemon, its wake-up socket, the timer that
# prunes, and Nix's hook.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.nix-queued;

  configuration = import ./configuration.nix {
    inherit lib pkgs cfg;
    credentials = cfg.loadCredentials;
  };
  hook = import ./hook.nix { inherit lib pkgs config cfg; };
  sandbox = import ./sandbox.nix;

  programs = "${cfg.package}/bin";
  configFile = "/etc/nix-queued/queued.toml";
  readers = config.services.nix-queued.settings.reader-group or null;
  usualUser = "nix-queued";

  # systemd makes directories below /var/lib; others are only opened.
  inVarLib = lib.hasPrefix "/var/lib/" cfg.stateDir;
  state =
    if inVarLib then
      {
        StateDirectory = lib.removePrefix "/var/lib/" cfg.stateDir;
        StateDirectoryMode = "0750";
      }
    else
      { ReadWritePaths = [ cfg.stateDir ]; };

  identity = {
    User = cfg.user;
    Group = cfg.group;
  };
  environment = {
    NIX_QUEUED_STATE_DIR = cfg.stateDir;
    NIX_QUEUED_ROOTS_DIR = cfg.roots.directory;
    HOME = cfg.stateDir;
  };

  allowed = config.nix.settings.allowed-users or [ "*" ];
in
{
  _class = "nixos";
  imports = [ ./options.nix ];

  options.services.nix-queued = {
    user = mkOption {
      type = types.str;
      default = usualUser;
      description = ''
        The user that the daemon runs as; one of another name than the default
        has to be there already.
      '';
    };

    group = mkOption {
      type = types.str;
      default = usualUser;
      description = ''
        The group of that user. Its members may look into the queue, with
        `queuectl` or `sqlite3 -readonly`.
      '';
    };

    loadCredentials = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether systemd hands the secret files to the daemon
        (`LoadCredential=`), so that only root has to be able to read them.
        Where that does not work, as in some LXC containers, turn it off, and
        let {option}`services.nix-queued.user` read them.
      '';
    };

    prune = {
      dates = mkOption {
        type = types.str;
        default = "weekly";
        example = "Sun 04:00";
        description = "When roots are pruned, as systemd.time(7) has it.";
      };
      persistent = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Whether pruning that was due while the machine was off is done when
          it is on again.
        '';
      };
      randomizedDelaySec = mkOption {
        type = types.str;
        default = "1h";
        description = "By how much pruning is put off at random.";
      };
    };
  };

  config = mkIf cfg.enable {
    systemd.services.nix-queued = {
      description = "Sign and upload what Nix builds";
      documentation = [ "man:queued(8)" "man:queued.toml(5)" ];
      requires = [ "nix-queued.socket" ];
      wants = [ "network-online.target" ];
      after = [
        "nix-queued.socket"
        "nix-daemon.socket"
        "network-online.target"
      ];
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ configuration.file ];
      path = [ config.nix.package pkgs.openssh ];
      # Whatever keeps it from starting may pass.
      startLimitIntervalSec = 0;
      inherit environment;

      serviceConfig = lib.mkMerge [
        sandbox
        identity
        state
        {
          Type = "notify";
          WorkingDirectory = cfg.stateDir;
          ExecStart = "${programs}/queued --config ${configFile}";
          ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
          Restart = "on-failure";
          RestartSec = "10s";
          WatchdogSec = "60s";
          TimeoutStopSec = "15s";
          # Its children die as groups, by its own hand.
          KillMode = "mixed";
          CPUWeight = 50;
          IOWeight = 50;
          LimitNOFILE = 65536;
          RestrictAddressFamilies = [ "AF_INET" "AF_INET6" ];
          ReadWritePaths = map (directory: "-${directory}")
            ([ cfg.roots.directory ] ++ configuration.directories);
        }
        (mkIf (configuration.loadCredential != [ ]) {
          LoadCredential = configuration.loadCredential;
        })
        # To give the queue to another group, it may chgrp.
        (mkIf (readers != null) {
          PrivateUsers = lib.mkForce false;
          RestrictSUIDSGID = lib.mkForce false;
          SystemCallFilter = lib.mkAfter [ "@chown" ];
        })
      ];
    };

    systemd.sockets.nix-queued = {
      description = "Wakes the upload queue when something was built";
      documentation = [ "man:queued(8)" ];
      wantedBy = [ "sockets.target" ];
      listenDatagrams = [ "${cfg.stateDir}/wake.sock" ];
      socketConfig = {
        SocketUser = cfg.user;
        SocketGroup = cfg.group;
        SocketMode = "0660";
        DirectoryMode = "0750";
        RemoveOnStop = true;
      };
    };

    systemd.services.prune-arm-cache-roots = mkIf cfg.prune.enable {
      description = "Remove garbage collector roots of uploads that are old";
      documentation = [ "man:queuectl(1)" ];
      after = [ "nix-queued.service" ];
      unitConfig.ConditionPathIsDirectory = cfg.roots.directory;
      inherit environment;
      serviceConfig = lib.mkMerge [
        sandbox
        identity
        state
        {
          Type = "oneshot";
          ExecStart = "${programs}/queuectl prune --config ${configFile}";
          TimeoutStartSec = "10min";
          ReadWritePaths = [ cfg.roots.directory ];
          PrivateNetwork = true;
          IPAddressDeny = "any";
        }
      ];
    };

    systemd.timers.prune-arm-cache-roots = mkIf cfg.prune.enable {
      description = "Remove old roots of uploads";
      documentation = [ "man:queuectl(1)" ];
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.prune.dates;
        Persistent = cfg.prune.persistent;
        RandomizedDelaySec = cfg.prune.randomizedDelaySec;
      };
    };

    # The hook makes roots as root; the daemon removes them.
    systemd.tmpfiles.rules = [
      "d ${cfg.roots.directory} 0755 ${cfg.user} ${cfg.group} -"
      "d ${cfg.stateDir} 0750 ${cfg.user} ${cfg.group} -"
    ]
    ++ map
      # Only what is not there: it may be another machine's.
      (directory: "d ${directory} :0755 :${cfg.user} :${cfg.group} -")
      configuration.directories;

    users.users.${cfg.user} = lib.mkMerge [
      (mkIf (cfg.user == usualUser) {
        description = "Nix upload queue";
        isSystemUser = true;
        group = cfg.group;
        home = cfg.stateDir;
      })
      (mkIf (readers != null) { extraGroups = [ readers ]; })
    ];
    users.groups = mkIf (cfg.group == usualUser) { ${usualUser} = { }; };

    environment.systemPackages = [ cfg.package ];
    environment.etc = {
      "nix-queued/queued.toml".source = configuration.file;
    }
    // lib.mapAttrs
      (_: source: { inherit source; mode = "0755"; })
      hook.scripts;

    nix.settings = hook.settings;

    assertions = configuration.assertions ++ hook.assertions ++ [
      {
        assertion = readers == null || config.users.groups ? ${readers};
        message = ''
          services.nix-queued.queue.adminGroup: there is no group
          `${toString readers}` in users.groups.
        '';
      }
      {
        assertion = lib.any (name: lib.elem name allowed)
          [ "*" cfg.user "@${cfg.group}" ];
        message = ''
          services.nix-queued: nix.settings.allowed-users keeps `${cfg.user}`
          from talking to the Nix daemon; add it there.
        '';
      }
    ];

    warnings = lib.optional
      (cfg.signing.keyFiles != [ ]
        && lib.versionOlder (lib.getVersion config.nix.package) "2.17"
        && !(lib.elem cfg.user config.nix.settings.trusted-users))
      ''
        services.nix-queued: Nix before 2.17 lets only trusted users add
        signatures to the local store. Binary caches get them all the same, but
        what goes over SSH goes without, and is refused unless the receiver
        trusts the login; the same for machines that copy from this store. If
        you have such, add `${cfg.user}` to nix.settings.trusted-users.
      '';
  };
}
