# services.nix-builder.harmonia: a server of this machine's own store.
{ config, lib, options, pkgs, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.harmonia";
  cfg = config.services.nix-builder.harmonia;
  checks = import ../lib/checks.nix;

  # Without a key of its own it takes the one that agenix has, if there is one.
  agenix = config.age.secrets.harmonia-signing-key.path or null;
  key = if cfg.signKeyPath != null then cfg.signKeyPath else agenix;
  keys = map toString (cfg.signKeyPaths ++ lib.optional (key != null) key);

  signedByAgent = (config.services.nix-queued.signing.keyFiles or [ ]) != [ ];

  server = {
    enable = true;
    settings = {
      bind = "${cfg.address}:${toString cfg.port}";
      workers = cfg.workers;
      max_connections = cfg.maxConnections;
      priority = cfg.priority;
    };
  }
  // (
    # Old releases of nixpkgs know a single key.
    if stock ? signKeyPaths then
      { signKeyPaths = keys; }
    else
      { signKeyPath = if keys == [ ] then null else builtins.head keys; }
  );

  # services.harmonia.cache since its split, services.harmonia before.
  split = options.services.harmonia ? cache;
  stock = options.services.harmonia.cache or options.services.harmonia;

  proxy = config.services.nix-builder.proxy or { enable = false; };
  servedPort = if proxy.enable then proxy.listenPort else cfg.port;
  inherit (config.services) tailscale;
  onTailnet = cfg.tailnetHostname != null && tailscale.enable;
  serve = "${tailscale.package or pkgs.tailscale}/bin/tailscale serve";
  service = "svc:${cfg.tailnetHostname}";
in
{
  _class = "nixos";

  options.services.nix-builder.harmonia = {
    enable = lib.mkEnableOption
      "Harmonia, a server of this machine's Nix store";

    port = mkOption {
      type = types.port;
      default = 5000;
      description = "The port to listen on.";
    };

    address = mkOption {
      type = types.str;
      default = "[::]";
      example = "127.0.0.1";
      description = ''
        The address to listen on; the default is all of them. Behind the proxy
        of the same machine 127.0.0.1 is enough.
      '';
    };

    signKeyPath = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/var/lib/secrets/harmonia.secret";
      description = ''
        The secret key to sign what is served with. Null: the agenix secret
        `harmonia-signing-key`, if the configuration has one.
      '';
    };

    signKeyPaths = mkOption {
      type = types.listOf types.path;
      default = [ ];
      description = "Further keys, for instance the old one while keys change.";
    };

    workers = mkOption {
      type = types.ints.positive;
      default = 4;
      description = "How many threads there are. 8 for a busy server.";
    };

    maxConnections = mkOption {
      type = types.ints.positive;
      default = 25;
      description = "How many connections each thread takes at once.";
    };

    priority = mkOption {
      type = types.ints.unsigned;
      default = (import ../lib/cache.nix).priority;
      description = ''
        What nix-cache-info says: clients ask caches with lower numbers first.
      '';
    };

    tailnetHostname = mkOption {
      type = types.nullOr types.str;
      default = "nix-cache";
      description = ''
        The name under which the cache is to be found in the tailnet, on port
        80: the proxy if there is one, else Harmonia itself. It has an effect
        where `services.tailscale` is enabled, and needs Tailscale 1.86 or
        later and a service of that name in its admin console. Null: none.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether others may reach the port directly.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = map (checks.outsideStore "${name}.signKeyPath")
      ([ cfg.signKeyPath ] ++ cfg.signKeyPaths);

    warnings = lib.optional (keys == [ ] && !signedByAgent)
      ''
        ${name} has no signing key: clients refuse whatever this machine has
        built ("lacks a valid signature"). Make one with `nix-store
        --generate-binary-cache-key NAME SECRET-FILE PUBLIC-FILE`, set
        signKeyPath to the secret file, and give the public one to the clients.
      '';

    services.harmonia = if split then { cache = server; } else server;

    networking.firewall.allowedTCPPorts =
      lib.optional cfg.openFirewall cfg.port;

    systemd.services.nix-cache-tailnet = lib.mkIf onTailnet {
      description = "Nix cache as ${cfg.tailnetHostname} in the tailnet";
      after = [ "tailscaled.service" ];
      requires = [ "tailscaled.service" ];
      wantedBy = [ "multi-user.target" ];
      # Fails until the machine has been logged in to the tailnet.
      startLimitIntervalSec = 0;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        Restart = "on-failure";
        RestartSec = "30s";
        ExecStart = "${serve} --service=${service} --http=80 --yes"
          + " http://127.0.0.1:${toString servedPort}";
        ExecStop = "${serve} clear ${service}";
      };
    };
  };
}
