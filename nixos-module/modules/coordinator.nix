# services.nix-builder.coordinator: a machine that hands builds to others over
# SSH, and signs, pins and offers to its cache whatever comes back.
{ config, lib, options, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.coordinator";
  cfg = config.services.nix-builder.coordinator;
  opt = options.services.nix-builder.coordinator;
  checks = import ../lib/checks.nix;
  default = import ../lib/builder.nix { hostname = ""; };

  builder = types.submodule {
    options = {
      hostname = mkOption {
        type = types.str;
        description = "The builder's name or address, as ssh takes it.";
      };
      sshUser = mkOption {
        type = types.str;
        default = default.sshUser;
        description = "The user to log in as.";
      };
      port = mkOption {
        type = types.port;
        default = default.port;
        description = "The port of the builder's sshd.";
      };
      protocol = mkOption {
        type = types.enum [
          "ssh"
          "ssh-ng"
        ];
        default = default.protocol;
        description = ''
          `ssh-ng` reports more while it builds; both machines need Nix 2.4 or
          later for it.
        '';
      };
      systems = mkOption {
        type = types.listOf types.str;
        default = default.systems;
        example = [ "aarch64-linux" ];
        description = "Which systems are built there.";
      };
      maxJobs = mkOption {
        type = types.ints.positive;
        default = default.maxJobs;
        description = "Builds at once there: about one for each core.";
      };
      speedFactor = mkOption {
        type = types.ints.positive;
        default = default.speedFactor;
        description = ''
          How fast the machine is: 1 normal, 2 fast, 3 very fast. Of the
          machines that can build something, the fastest that is free does.
        '';
      };
      supportedFeatures = mkOption {
        type = types.listOf types.str;
        default = default.supportedFeatures;
        description = ''
          What derivations may require of the machine: `kvm` (hardware
          virtualisation), `nixos-test` (virtual machine tests), `benchmark`
          (a quiet machine) and `big-parallel` (large builds with many jobs).
          Leave out what it does not have.
        '';
      };
      mandatoryFeatures = mkOption {
        type = types.listOf types.str;
        default = default.mandatoryFeatures;
        description = ''
          Only derivations that require all of these are built there.
        '';
      };
      publicHostKey = mkOption {
        type = types.nullOr types.str;
        default = default.publicHostKey;
        example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI...";
        description = ''
          The machine's host key: /etc/ssh/ssh_host_ed25519_key.pub there, or
          what `ssh-keyscan` prints, without the host's name. Without it, root
          has to have accepted the key before: the Nix daemon cannot ask.
        '';
      };
      compression = mkOption {
        type = types.bool;
        default = default.compression;
        description = "Whether ssh compresses: for slow links, not for a LAN.";
      };
    };
  };

  withHostKey = builtins.filter (b: b.publicHostKey != null) cfg.builders;
  hostKeys = builtins.listToAttrs (map
    (b: { name = b.hostname; value.publicKey = b.publicHostKey; }) withHostKey);

  keyLine = "(ssh|ecdsa|sk)-[^ ]+ [A-Za-z0-9+/=]+( .*)?";
  wrongKeys = builtins.filter (key: builtins.match keyLine key == null)
    (map (b: b.publicHostKey) withHostKey);

  names = map (b: b.hostname) cfg.builders;

  signingKey = checks.outsideStore "${name}.signingKeyPath" cfg.signingKeyPath;
  signs = cfg.signingKeyPath != null && signingKey.assertion;
  keyFiles = lib.optional signs (toString cfg.signingKeyPath);
in
{
  _class = "nixos";
  imports = [ ./agent/nixos.nix ];

  options.services.nix-builder.coordinator = {
    enable = lib.mkEnableOption "handing builds to other machines";

    sshKeyPath = mkOption {
      type = types.path;
      example = "/run/agenix/nix-builder-ssh-key";
      description = ''
        The private key to log in to the builders with. Only root should be
        able to read it, and it must have no passphrase.
      '';
    };

    signingKeyPath = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/agenix/harmonia-signing-key";
      description = ''
        The secret key that everything built is signed with. Null: builds are
        not signed, which is enough where the cache server signs.
      '';
    };

    enableLocalBuilds = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether this machine builds as well: what no builder is able to build,
        or has the time to, or while none can be reached. If not, a build waits
        or fails when no builder takes it.
      '';
    };

    localCache = mkOption {
      type = types.nullOr types.str;
      default = "http://localhost:5000";
      description = ''
        The cache server on this machine. It serves this machine's store, so a
        path is there as soon as it is built; the agent keeps it from the
        garbage collector, and looks whether the server shows it. Null: no
        cache is looked at; with signingKeyPath, paths are signed and kept.
      '';
    };

    localCacheUpload = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether localCache takes paths by HTTP PUT, like
        `services.nix-builder.uploadEndpoint`. Harmonia and nix-serve do not.
      '';
    };

    builders = mkOption {
      type = types.listOf builder;
      default = [ ];
      example = lib.literalExpression ''
        [ { hostname = "nix-01"; maxJobs = 8; speedFactor = 2; } ]
      '';
      description = "The machines that build. `lib.builders` is such a list.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = opt.sshKeyPath.isDefined;
        message = ''
          ${name}.sshKeyPath is not set: Nix could not log in to any builder.
          Make a key for this alone, without a passphrase (ssh-keygen -t
          ed25519 -f /etc/nix/builder-key), set sshKeyPath to it, and give the
          text of its .pub file to
          services.nix-builder.builder.authorizedKeys there.
        '';
      }
      {
        assertion = cfg.enableLocalBuilds || cfg.builders != [ ];
        message = ''
          ${name}: enableLocalBuilds is false and builders is empty, so nothing
          could be built at all, not even this system. Add a builder, or set
          enableLocalBuilds = true.
        '';
      }
      {
        assertion = lib.unique names == names;
        message = ''
          ${name}.builders names a machine twice
          (${lib.concatStringsSep ", " names}): its jobs would be counted twice.
          Give it one entry with all its systems.
        '';
      }
      {
        assertion = cfg.localCacheUpload -> cfg.localCache != null;
        message = ''
          ${name}: localCacheUpload is true but localCache is null: there is
          nowhere to upload to. Set localCache to the upload endpoint's URL.
        '';
      }
      {
        assertion = wrongKeys == [ ];
        message = ''
          ${name}.builders: publicHostKey
          `${lib.concatStringsSep "', `" wrongKeys}' is no host key, so ssh
          would refuse the builder. It looks like `ssh-ed25519 AAAA...': copy
          /etc/ssh/ssh_host_ed25519_key.pub from there.
        '';
      }
      signingKey
    ]
    ++ lib.optional opt.sshKeyPath.isDefined
      (checks.outsideStore "${name}.sshKeyPath" cfg.sshKeyPath);

    warnings =
      lib.optional (!cfg.enableLocalBuilds)
        ''
          ${name}.enableLocalBuilds is false: max-jobs is 0, and while no
          builder can be reached nothing is built ("Failed to find a machine for
          remote build"). To get out of that: nixos-rebuild switch --option
          max-jobs auto --option builders "".
        '';

    nix.distributedBuilds = cfg.builders != [ ];
    nix.buildMachines = lib.optionals opt.sshKeyPath.isDefined
      (map (import ../lib/buildMachine.nix cfg.sshKeyPath) cfg.builders);
    nix.settings = {
      # Builders fetch dependencies themselves, and do not get them from here.
      builders-use-substitutes = lib.mkDefault true;
      max-jobs = lib.mkIf (!cfg.enableLocalBuilds) 0;
    };

    programs.ssh.extraConfig = import ../lib/sshMatch.nix cfg.builders;
    programs.ssh.knownHosts = hostKeys;

    # The agent keeps what comes back from the garbage collector, and signs it.
    # The cache of this machine serves this very store: nothing is sent to it,
    # unless it is one that takes uploads.
    services.nix-queued = lib.mkIf (signs || cfg.localCache != null) {
      enable = true;
      signing = { inherit keyFiles; };
      targets =
        if cfg.localCache == null then
          { local-store.url = "local:"; }
        else
          {
            local-cache.url =
              (if cfg.localCacheUpload then "" else "local:") + cfg.localCache;
          };
    };
  };
}
