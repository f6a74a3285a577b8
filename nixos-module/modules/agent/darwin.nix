# services.nix-queued on nix-darwin: the daemon, the job that prunes, and
# Nix's hook. launchd hands over no credentials: the daemon's user has to be
# able to read the files with secrets.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.nix-queued;

  configuration = import ./configuration.nix {
    inherit lib pkgs cfg;
    credentials = false;
  };
  hook = import ./hook.nix { inherit lib pkgs config cfg; };

  usualUser = "_nix-queued";
  log = "/var/log/nix-queued.log";
  certificates = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
  # Where nix-darwin does not manage Nix, it has none to name.
  nix = if config.nix.enable then config.nix.package else pkgs.nix;

  programs = "${cfg.package}/bin";
  user = lib.escapeShellArg cfg.user;
  group = lib.escapeShellArg cfg.group;
  directory = mode: path: ''
    /usr/bin/install -d -o ${user} -g ${group} -m ${mode} \
      ${lib.escapeShellArg path}
  '';

  job = {
    UserName = cfg.user;
    GroupName = cfg.group;
    WorkingDirectory = cfg.stateDir;
    StandardErrorPath = log;
    ProcessType = "Background";
    LowPriorityIO = true;
    Nice = 5;
    # 027: nothing for others.
    Umask = 23;
    # A core dump would have the keys in it.
    HardResourceLimits.Core = 0;
  };
  environment = {
    NIX_QUEUED_STATE_DIR = cfg.stateDir;
    NIX_QUEUED_ROOTS_DIR = cfg.roots.directory;
    HOME = cfg.stateDir;
    NIX_SSL_CERT_FILE = certificates;
    SSL_CERT_FILE = certificates;
  };
in
{
  _class = "darwin";
  imports = [ ./options.nix ];

  options.services.nix-queued = {
    user = mkOption {
      type = types.str;
      default = usualUser;
      description = ''
        The user that the daemon runs as. It has to be able to read the files
        with secrets; one of another name than the default has to be there
        already.
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

    id = mkOption {
      type = types.int;
      default = 539;
      description = "Number of that user and of that group.";
    };

    prune.interval = mkOption {
      type = types.listOf (types.attrsOf types.int);
      default = [ { Weekday = 0; Hour = 4; Minute = 0; } ];
      description = ''
        When roots are pruned, as `StartCalendarInterval` in launchd.plist(5)
        has it. What was due while the machine slept is done when it wakes.
      '';
    };
  };

  config = mkIf cfg.enable {
    launchd.daemons.nix-queued = {
      command = "${programs}/queued --config ${configuration.file}";
      path = [ nix pkgs.openssh "/usr/bin" "/bin" ];
      inherit environment;
      serviceConfig = job // {
        RunAtLoad = true;
        KeepAlive.SuccessfulExit = false;
        ThrottleInterval = 10;
        ExitTimeOut = 15;
      };
    };

    launchd.daemons.prune-arm-cache-roots = mkIf cfg.prune.enable {
      command = "${programs}/queuectl prune --config ${configuration.file}";
      inherit environment;
      serviceConfig = job // {
        RunAtLoad = false;
        StartCalendarInterval = cfg.prune.interval;
      };
    };

    # After nix-darwin has made the user, before it loads the daemons.
    system.activationScripts.launchd.text = lib.mkBefore (
      directory "0750" cfg.stateDir
      + directory "0755" cfg.roots.directory
      + ''
        /usr/bin/touch ${log}
        /usr/sbin/chown ${user}:${group} ${log}
      '');

    users.users = mkIf (cfg.user == usualUser) {
      ${usualUser} = {
        uid = cfg.id;
        gid = cfg.id;
        home = cfg.stateDir;
        description = "Nix upload queue";
      };
    };
    users.groups = mkIf (cfg.group == usualUser) {
      ${usualUser} = {
        gid = cfg.id;
        description = "Nix upload queue";
      };
    };
    users.knownUsers = mkIf (cfg.user == usualUser) [ usualUser ];
    users.knownGroups = mkIf (cfg.group == usualUser) [ usualUser ];

    environment.systemPackages = [ cfg.package ];
    environment.etc = {
      "nix-queued/queued.toml".source = configuration.file;
    }
    // lib.mapAttrs (_: source: { inherit source; }) hook.scripts;

    nix.settings = hook.settings;

    assertions = configuration.assertions ++ hook.assertions;
  };
}
