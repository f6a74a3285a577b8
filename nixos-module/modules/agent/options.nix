# services.nix-queued: what NixOS and nix-darwin have in common.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.nix-queued;
  secretFile = import ./secret-file.nix lib;
  boolean = default: description: mkOption {
    type = types.bool;
    inherit default description;
  };
in
{
  options.services.nix-queued = {
    enable = lib.mkEnableOption
      "nix-queued, which signs, uploads and pins what Nix builds here";

    package = mkOption {
      type = types.package;
      default = pkgs.nix-queued or (pkgs.callPackage ../../package.nix { });
      defaultText = lib.literalExpression "pkgs.nix-queued";
      description = "The package with queued, queuectl and queued-hook.";
    };

    installHook = boolean true ''
      Whether Nix runs `queued-hook` after every build
      ({option}`nix.settings.post-build-hook`). Nix runs one such hook: if
      there is another, call `queued-hook` at its end and turn this off.
    '';

    strict = boolean false ''
      Whether a build fails whose outputs could be written neither into the
      queue nor into its spool. Otherwise they are named in the build's log.
    '';

    legacyScripts.enable = boolean false ''
      Whether to make {file}`/etc/nix/pin-arm-cache.sh` and
      {file}`/etc/nix/upload-to-cache.sh`, for configurations that name one of
      them as their hook. Both run `queued-hook`.
    '';

    targets = mkOption {
      type = types.attrsOf (types.submodule ./targets.nix);
      default = { };
      example = {
        nas = {
          url = "ssh-ng://nix-ssh@nas";
          sshKeyFile = "/run/keys/nix-upload";
          pinRemote = true;
        };
      };
      description = ''
        The caches that every path goes to. A machine that only keeps roots
        has none, and says so with
        {option}`services.nix-queued.settings.target` = [ ].
      '';
    };

    signing.keyFiles = mkOption {
      type = types.listOf secretFile;
      default = [ ];
      example = [ "/run/keys/cache-priv-key.pem" ];
      description = ''
        Files with secret keys, as `nix-store --generate-binary-cache-key`
        writes them. Every path is signed with each of them, in the caches and
        in the local store; with none, nothing is signed.
      '';
    };

    roots = {
      enable = boolean true ''
        Whether the garbage collector leaves what was built here alone also
        after all targets have it. Until then it does in any case.
      '';
      directory = mkOption {
        type = types.path;
        default = "/nix/var/nix/gcroots/arm-cache";
        description = "Directory of these garbage collector roots.";
      };
      systems = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = [ "aarch64-linux" ];
        description = "The systems whose builds' roots stay; null is all.";
      };
      maxAge = mkOption {
        type = types.strMatching "[0-9]+ ?(ms|s|m|h|d)";
        default = "30d";
        description = "Age at which roots are pruned.";
      };
    };

    prune.enable = boolean true ''
      Whether roots are pruned that are older than
      {option}`services.nix-queued.roots.maxAge` and whose path has no open
      upload, by the job `prune-arm-cache-roots`. If a target has
      {option}`pinRemote`, the daemon prunes as well, once a day, here and
      there.
    '';

    stateDir = mkOption {
      type = types.path;
      default = "/var/lib/nix-queued";
      description = ''
        Directory of the queue (`queue.db`), its spool and its sockets.
      '';
    };

    queue.adminGroup = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "wheel";
      description = ''
        Group whose members may read the queue, with `queuectl` or
        `sqlite3 -readonly`. Members of
        {option}`services.nix-queued.group` may do so anyway.
      '';
    };

    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = lib.literalExpression
        "pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform";
      description = ''
        Whether `queued --check-config` looks at the configuration when it is
        built: then what is wrong with it keeps the system from being built.
      '';
    };

    settings = mkOption {
      type = types.submodule {
        freeformType = (pkgs.formats.toml { }).type;
      };
      default = { };
      example = {
        log-level = "debug";
        concurrency.uploads = 4;
      };
      description = ''
        The configuration as queued.toml(5) has it. The other options end here
        as well, and give way to what is set here; of what is a list, both
        count. Keys that name secret files are handed over as those of the
        other options are.
      '';
    };
  };

  config.services.nix-queued.settings = lib.mkIf cfg.enable
    (import ./settings.nix { inherit lib cfg; });
}
