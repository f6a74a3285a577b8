# services.nix-builder.populate: builds flake outputs on a schedule, so that the
# cache has them before anybody asks.
{ config, lib, options, pkgs, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.populate";
  cfg = config.services.nix-builder.populate;
  opt = options.services.nix-builder.populate;
  # An assertion says so if it is not set.
  flake = if opt.flake.isDefined then cfg.flake else "";
  isDirectory = lib.hasPrefix "/" flake;

  # "packages.x86_64-linux.hello" is of our flake, "nixpkgs#hello" of another.
  installable = output:
    if lib.hasInfix "#" output then output else "${flake}#${output}";

  # The directory with the links to an output: its name, as a file's name.
  linkName = builtins.replaceStrings
    [ "/" "#" ":" "?" "&" " " ]
    [ "-" "-" "-" "-" "-" "-" ];

  link = if cfg.pin then ''--out-link "$links/$1/result"'' else "--no-link";
  pinned = if cfg.pin then map linkName cfg.outputs else [ ];

  build = output:
    "build ${lib.escapeShellArgs [ (linkName output) (installable output) ]}\n";
in
{
  _class = "nixos";

  options.services.nix-builder.populate = {
    enable = lib.mkEnableOption
      "building flake outputs on a schedule, for the cache";

    flake = mkOption {
      type = types.str;
      example = "/etc/nixos";
      description = ''
        The flake: a directory, or anything that `nix build` takes.
      '';
    };

    outputs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "nixosConfigurations.desktop.config.system.build.toplevel" ];
      description = ''
        What to build: outputs of the flake, or whole references with a `#`,
        such as `nixpkgs#firefox`.
      '';
    };

    dates = mkOption {
      type = types.str;
      default = "daily";
      example = "weekly";
      description = "When, as systemd.time(7) has it.";
    };

    persistent = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether to catch up on what was missed while the machine was off.
      '';
    };

    updateLock = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to update the flake's inputs before, and to commit flake.lock.
        Without a network the old ones are built.
      '';
    };

    user = mkOption {
      type = types.str;
      default = "root";
      description = ''
        Who builds. Git refuses a repository that belongs to somebody else:
        then this has to be its owner.
      '';
    };

    pin = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether to keep the newest build of each output from the garbage
        collector, with all that it needs. What the cache serves goes at the
        next collection otherwise.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = opt.flake.isDefined;
        message = ''
          ${name}.flake is not set, so there is nothing to build from. Set it to
          the directory of your flake, such as "/etc/nixos", or to its URL.
        '';
      }
      {
        assertion = cfg.outputs != [ ];
        message = ''
          ${name}.outputs is empty, so nothing would ever be built. Add outputs
          of the flake, such as
          "nixosConfigurations.desktop.config.system.build.toplevel".
        '';
      }
      {
        assertion = !(opt.flake.isDefined && cfg.updateLock && !isDirectory);
        message = ''
          ${name}.updateLock is true, but ${flake} is not a directory on this
          machine: there is no flake.lock to update. Use a clone of it, or set
          updateLock = false.
        '';
      }
    ];

    systemd.services.populate-cache = {
      description = "Build flake outputs to populate the binary cache";
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      path = [
        config.nix.package
        pkgs.git
        pkgs.openssh
      ];
      environment = {
        HOME = "/var/lib/populate-cache";
        # The daemon builds, also for root: with its hook, and its roots.
        NIX_REMOTE = "daemon";
        NIX_CONFIG = "extra-experimental-features = nix-command flakes";
      };
      serviceConfig = {
        Type = "oneshot";
        User = cfg.user;
        StateDirectory = "populate-cache";
        NoNewPrivileges = true;
        PrivateTmp = true;
        ProtectSystem = "strict";
        ReadWritePaths = lib.optional (cfg.updateLock && isDirectory) flake;
        ProtectKernelTunables = true;
        ProtectKernelModules = true;
        ProtectControlGroups = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
      };
      script = ''
        links=$STATE_DIRECTORY/outputs
        failed=
        mkdir -p "$links"

        # One that fails keeps none of the others from being built, and its last
        # good build stays.
        build() {
          echo "building $2"
          mkdir -p "$links/$1"
          nix build --print-build-logs ${link} "$2" || failed="$failed $2"
        }

      ''
      + lib.optionalString isDirectory ''
        cd ${lib.escapeShellArg flake}
      ''
      + lib.optionalString cfg.updateLock ''
        nix flake update --commit-lock-file ||
          echo "cannot update flake.lock: building with the old one" >&2
      ''
      + lib.concatMapStrings build cfg.outputs
      + ''

        # What is no longer on the list is no longer kept.
        for directory in "$links"/*; do
          case " ${lib.concatStringsSep " " pinned} " in
            *" ''${directory##*/} "*) ;;
            *) rm -rf -- "$directory" ;;
          esac
        done

        if [ -n "$failed" ]; then
          echo "not built:$failed (see above; \`nix build\` them by hand)" >&2
          exit 1
        fi
      '';
    };

    systemd.timers.populate-cache = {
      description = "Build flake outputs to populate the binary cache";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.dates;
        Persistent = cfg.persistent;
      };
    };
  };
}
