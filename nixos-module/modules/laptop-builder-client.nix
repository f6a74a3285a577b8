# services.laptop-builder-client: a laptop that lets a desktop build, and takes
# what is there, while the desktop is on; and does well without it.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  name = "services.laptop-builder-client";
  cfg = config.services.laptop-builder-client;
  checks = import ../lib/checks.nix;
  default = import ../lib/builder.nix { hostname = ""; };
  cacheUrl = "http://${cfg.desktopIP}:${toString cfg.cachePort}";
  cacheKey = lib.optional (cfg.cachePublicKey != null) cfg.cachePublicKey;
  trusted = config.nix.settings.trusted-public-keys;
  desktop = import ../lib/builder.nix {
    hostname = cfg.desktopIP;
    sshUser = cfg.builderUser;
    maxJobs = cfg.desktopMaxJobs;
    inherit (cfg) systems speedFactor supportedFeatures publicHostKey;
  };
in
{
  _class = "nixos";
  imports = [ ./utilities.nix ];

  options.services.laptop-builder-client = {
    enable = lib.mkEnableOption
      "building on a desktop that is not always there";

    desktopIP = mkOption {
      type = types.str;
      default = "192.168.15.6";
      description = "The desktop's address or name.";
    };

    builderKeyPath = mkOption {
      type = types.path;
      default = "/etc/nix/builder_key";
      description = ''
        The private key to log in with. It should belong to root alone (0600)
        and be good for nothing else.
      '';
    };

    maxJobs = mkOption {
      type = types.int;
      default = 4;
      description = ''
        How many builds this machine does itself at once. With 0 nothing is
        built, or even installed, while the desktop is off.
      '';
    };

    builderUser = mkOption {
      type = types.str;
      default = default.sshUser;
      description = "The user to log in as.";
    };

    desktopMaxJobs = mkOption {
      type = types.ints.positive;
      default = default.maxJobs;
      description = "How many builds the desktop does for us at once.";
    };

    speedFactor = mkOption {
      type = types.ints.positive;
      default = 2;
      description = ''
        How fast the desktop is; with several, the fastest is asked first.
      '';
    };

    systems = mkOption {
      type = types.listOf types.str;
      default = default.systems;
      description = "Which systems the desktop builds.";
    };

    supportedFeatures = mkOption {
      type = types.listOf types.str;
      default = default.supportedFeatures;
      description = "What derivations may require of the desktop.";
    };

    publicHostKey = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = ''
        The desktop's host key, /etc/ssh/ssh_host_ed25519_key.pub there. Without
        it, root has to have accepted the key before.
      '';
    };

    cachePort = mkOption {
      type = types.port;
      default = 5000;
      description = "The port of the desktop's cache.";
    };

    cachePublicKey = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = ''
        The public key of the desktop's cache, as `offload-generate-cache-keys`
        prints it there.
      '';
    };

    mountStore = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the desktop's store is to be seen in /nix/store-remote, by NFS,
        when somebody looks there. It never delays a boot.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      (checks.outsideStore "${name}.builderKeyPath" cfg.builderKeyPath)
    ]
    ++ checks.publicKeys "${name}.cachePublicKey" cacheKey;

    warnings =
      lib.optional (cfg.maxJobs == 0)
        ''
          ${name}.maxJobs is 0: while ${cfg.desktopIP} is off nothing is built
          ("Failed to find a machine for remote build"). To get out of that:
          nixos-rebuild switch --option max-jobs auto --option builders "".
        ''
      ++ lib.optional (checks.ownKeys trusted == [ ])
        ''
          ${name}: there is no key of ${cacheUrl}: Nix refuses what the desktop
          has built ("lacks a valid signature"). Set cachePublicKey to what
          offload-generate-cache-keys prints there.
        '';

    nix.distributedBuilds = true;
    nix.buildMachines = [
      (import ../lib/buildMachine.nix cfg.builderKeyPath desktop)
    ];
    nix.settings = {
      max-jobs = lib.mkDefault cfg.maxJobs;
      builders-use-substitutes = lib.mkDefault true;
      substituters = [ cacheUrl ];
      trusted-public-keys = cacheKey;

      connect-timeout = lib.mkDefault 2;
      http-connections = lib.mkDefault 25;
      fallback = lib.mkDefault true;
      narinfo-cache-negative-ttl = lib.mkDefault 3600;
    };

    programs.ssh.extraConfig = import ../lib/sshMatch.nix [ desktop ];
    programs.ssh.knownHosts = lib.optionalAttrs (cfg.publicHostKey != null) {
      ${cfg.desktopIP}.publicKey = cfg.publicHostKey;
    };

    fileSystems = lib.optionalAttrs cfg.mountStore {
      "/nix/store-remote" = {
        device = "${cfg.desktopIP}:/nix/store";
        fsType = "nfs";
        options = [
          "ro"
          "soft"
          "timeo=30"
          "retrans=2"
          "nofail"
          "noauto"
          "x-systemd.automount"
          "x-systemd.mount-timeout=10s"
          "x-systemd.idle-timeout=10min"
        ];
      };
    };

    # For offload-status, offload-test-build, offload-mount, ...
    services.nix-builder.utilities.enable = lib.mkDefault true;
  };
}
