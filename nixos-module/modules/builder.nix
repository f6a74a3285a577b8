# services.nix-builder.builder: a machine that builds for a coordinator.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.builder";
  cfg = config.services.nix-builder.builder;
  nix = config.nix.package;

  # Nix' protocols, and the two commands by which one tries a login. The words
  # of the request are compared, never run.
  login = pkgs.writeShellScript "nix-builder-login" ''
    case "''${SSH_ORIGINAL_COMMAND:-}" in
      "nix-store --serve" | "nix-store --serve --write")
        exec ${nix}/bin/nix-store --serve --write ;;
      "nix-daemon --stdio")
        exec ${nix}/bin/nix-daemon --stdio ;;
      "nix-store --version" | "nix --version")
        exec ${nix}/bin/nix-store --version ;;
      "echo "*)
        echo OK ;;
      *)
        echo "$0: this login is for Nix builds; it takes nix-store --serve" \
          "--write, nix-daemon --stdio, nix-store --version and echo OK." \
          "${name}.forceCommand = false allows everything." >&2
        exit 1 ;;
    esac
  '';

  # One line: options, kind, key, comment.
  keyLine = "([^\n]* )?(ssh|ecdsa|sk)-[^ \n]+ [A-Za-z0-9+/=]+( [^\n]*)?\n?";
  wrongKeys = map (builtins.substring 0 30) (
    builtins.filter (key: builtins.match keyLine key == null) cfg.authorizedKeys
  );
in
{
  _class = "nixos";

  options.services.nix-builder.builder = {
    enable = lib.mkEnableOption "building for other machines";

    user = mkOption {
      type = types.str;
      default = "nix-builder";
      description = ''
        The user that coordinators log in as. Nix trusts it: it may put paths
        into the store that nobody has signed.
      '';
    };

    authorizedKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... nas-01" ];
      description = "The public keys of the coordinators.";
    };

    authorizedKeyFiles = mkOption {
      type = types.listOf types.path;
      default = [ ];
      description = ''
        Files with public keys. They are read when the system is built, so they
        belong to the configuration; a secret that agenix decrypts at run time
        is not there yet.
      '';
    };

    forceCommand = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether the login is good for Nix' own protocols only. Machines that
        push to this one and pin what they push (`pinRemote`) need a shell:
        then this has to be false.
      '';
    };

    maxJobs = mkOption {
      type = with types; nullOr (either ints.unsigned (enum [ "auto" ]));
      default = null;
      description = ''
        How many builds at once, whoever asks. Null: Nix' own choice.
      '';
    };

    cores = mkOption {
      type = types.nullOr types.ints.unsigned;
      default = null;
      description = ''
        How many cores one build may use; 0 is all. Null: Nix' own choice.
      '';
    };

    emulatedSystems = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "aarch64-linux" ];
      description = ''
        Systems to build for by emulation. That is many times slower than a
        machine of the kind, and some builds fail under it.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = wrongKeys == [ ];
        message = ''
          ${name}.authorizedKeys has
          `${lib.concatStringsSep "...', `" wrongKeys}...', which is no public
          key, so the coordinator could not log in. It is the one line of a
          .pub file, `ssh-ed25519 AAAA...'; for files there is
          authorizedKeyFiles.
        '';
      }
      {
        assertion = cfg.user != "root";
        message = ''
          ${name}.user is root: coordinators would get all of this machine.
          Leave it at nix-builder.
        '';
      }
    ];

    warnings = lib.optional
      (cfg.authorizedKeys == [ ] && cfg.authorizedKeyFiles == [ ])
      ''
        ${name} has no authorizedKeys: unless there are some in
        /var/lib/nix-builder/.ssh, no coordinator can log in. Add the text of
        the coordinator's .pub file.
      '';

    # A login shell is needed: sshd runs the forced command with it.
    users.users.${cfg.user} = {
      isSystemUser = true;
      group = cfg.user;
      home = "/var/lib/nix-builder";
      createHome = true;
      useDefaultShell = true;
      description = "Nix remote builds";
      openssh.authorizedKeys.keys = cfg.authorizedKeys;
      openssh.authorizedKeys.keyFiles = cfg.authorizedKeyFiles;
    };
    users.groups.${cfg.user} = { };

    services.openssh.enable = true;
    services.openssh.extraConfig = lib.concatMapStrings (line: line + "\n") (
      [
        "Match User ${cfg.user}"
        "  AuthenticationMethods publickey"
        "  AllowAgentForwarding no"
        "  AllowTcpForwarding no"
        "  AllowStreamLocalForwarding no"
        "  PermitTunnel no"
        "  X11Forwarding no"
      ]
      ++ lib.optionals cfg.forceCommand [
        "  PermitTTY no"
        "  ForceCommand ${login}"
      ]
      # What comes after this is for everybody again.
      ++ [ "Match All" ]
    );

    nix.settings = {
      trusted-users = [ cfg.user ];
      max-jobs = lib.mkIf (cfg.maxJobs != null) cfg.maxJobs;
      cores = lib.mkIf (cfg.cores != null) cfg.cores;
    };
    boot.binfmt.emulatedSystems = cfg.emulatedSystems;
  };
}
