# services.nix-builder.proxy: nginx in front of the local server and of
# upstream, one URL for all. The text is that of lib.mkNginx.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.proxy";
  cfg = config.services.nix-builder.proxy;
  nginx = config.services.nginx;
  default = import ../lib/nginx/proxySettings.nix { };
  text = import ../lib/nginx/proxy.nix (removeAttrs cfg [
    "enable"
    "openFirewall"
  ]);

  size = types.strMatching "[0-9]+[kKmMgG]?";
  time = types.strMatching "[0-9]+(ms|s|m|h|d|w|M|y)?";

  # nginx' own cache directory is there and writable. Any other has to be made,
  # mounted, and opened in its sandbox.
  cacheDir = toString cfg.cacheDir;
  elsewhere = !lib.hasPrefix "/var/cache/nginx/" cacheDir;

  # NixOS chooses addresses, and does TLS, as long as nobody names addresses.
  usual = cfg.listenPort == default.listenPort
    && cfg.listenAddresses == default.listenAddresses;

  ofNetwork =
    if config.services.resolved.enable or false then
      [ "127.0.0.53" ]
    else
      config.networking.nameservers or [ ];
in
{
  _class = "nixos";

  options.services.nix-builder.proxy = {
    enable = lib.mkEnableOption
      "a caching proxy in front of the local cache and of cache.nixos.org";

    listenPort = mkOption {
      type = types.port;
      default = default.listenPort;
      description = "The port to listen on.";
    };

    listenAddresses = mkOption {
      type = types.listOf types.str;
      default = default.listenAddresses;
      description = "The addresses to listen on; those of IPv6 in brackets.";
    };

    serverNames = mkOption {
      type = types.nonEmptyListOf types.str;
      default = lib.unique [ "nix-cache" config.networking.hostName ];
      defaultText = lib.literalExpression
        ''[ "nix-cache" config.networking.hostName ]'';
      description = ''
        The names by which clients know it. Where nginx serves nothing else on
        this port, any name and address will do.
      '';
    };

    localUrl = mkOption {
      type = types.str;
      default = default.localUrl;
      description = ''
        The server of this machine's own store: asked first, never cached.
      '';
    };

    uploadDirectory = mkOption {
      type = types.nullOr types.path;
      default = default.uploadDirectory;
      defaultText = lib.literalExpression
        "services.nix-builder.uploadEndpoint.directory, if that is enabled";
      description = ''
        A directory with a binary cache, looked into before anything else.
      '';
    };

    fallthroughOn = mkOption {
      type = types.listOf types.int;
      default = default.fallthroughOn;
      description = ''
        The answers of the local server that make the proxy ask upstream. With
        more than 404, a local server in trouble costs a build or a download
        instead of an error; clients may then believe for an hour that the
        cache does not have a path.
      '';
    };

    upstream = mkOption {
      type = types.str;
      default = default.upstream;
      description = ''
        The cache to ask for what is not here, and to keep copies of.
      '';
    };

    caFile = mkOption {
      type = types.path;
      default = default.caFile;
      description = "The certificate authorities that may vouch for upstream.";
    };

    resolver = mkOption {
      type = types.listOf types.str;
      default = ofNetwork;
      defaultText = lib.literalExpression ''
        if config.services.resolved.enable then
          [ "127.0.0.53" ]
        else
          config.networking.nameservers
      '';
      example = [ "192.168.1.1" ];
      description = ''
        The DNS servers that nginx asks for upstream's address. It asks when it
        needs to, so that it starts, and serves what it has, without a network.
      '';
    };

    upstreamIpv6 = mkOption {
      type = types.bool;
      default = default.upstreamIpv6;
      description = "Whether to use IPv6 addresses of upstream.";
    };

    offlineMissAs404 = mkOption {
      type = types.bool;
      default = default.offlineMissAs404;
      description = ''
        Whether to say "not found" of what is not cached while upstream cannot
        be reached. Clients then build at once instead of trying again five
        times, but believe it for as long as their `narinfo-cache-negative-ttl`.
      '';
    };

    cacheDir = mkOption {
      type = types.path;
      default = default.cacheDir;
      example = "/ssdpool/local/nix-cache-proxy";
      description = "Where copies of upstream's files are kept.";
    };

    maxSize = mkOption {
      type = size;
      default = default.maxSize;
      description = ''
        How much they may be; those that were not used longest go first.
      '';
    };

    minFree = mkOption {
      type = size;
      default = default.minFree;
      description = "How much of that file system is left free.";
    };

    validity = mkOption {
      type = time;
      default = default.validity;
      description = "How long a copy is served without asking upstream again.";
    };

    inactive = mkOption {
      type = time;
      default = default.inactive;
      description = "How long a copy that nobody asks for is kept.";
    };

    negativeTtl = mkOption {
      type = time;
      default = default.negativeTtl;
      description = "How long upstream's \"not found\" is believed.";
    };

    lockTimeout = mkOption {
      type = time;
      default = default.lockTimeout;
      description = ''
        How long clients wait for another one's download of the same file. Keep
        it below their `stalled-download-timeout`, which is 300 seconds.
      '';
    };

    priority = mkOption {
      type = types.ints.unsigned;
      default = default.priority;
      description = ''
        What nix-cache-info says: clients ask caches with lower numbers first.
        They remember it for a week.
      '';
    };

    storeDir = mkOption {
      type = types.path;
      default = default.storeDir;
      description = "The store that this is a cache of.";
    };

    accessLog = mkOption {
      type = types.enum [
        "syslog"
        "file"
        "off"
      ];
      default = default.accessLog;
      description = ''
        Where requests are logged, with X-Cache-Status: `syslog` is the journal
        (`journalctl -u nginx`), `file` is accessLogFile.
      '';
    };

    accessLogFile = mkOption {
      type = types.path;
      default = default.accessLogFile;
      description = "The file for `accessLog = \"file\"`.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether others may reach the port.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.resolver != [ ];
        message = ''
          ${name}.resolver is empty, so nginx could not look up ${cfg.upstream}.
          It does not read /etc/resolv.conf: name your DNS server, for instance
          resolver = [ "192.168.1.1" ], or set networking.nameservers, or enable
          services.resolved.
        '';
      }
      {
        assertion = !lib.hasPrefix "${builtins.storeDir}/" cacheDir;
        message = ''
          ${name}.cacheDir is ${cacheDir}, in the Nix store, where
          nginx cannot write. Name a directory like
          /var/cache/nginx/nix-cache-proxy.
        '';
      }
    ];

    services.nginx = {
      enable = true;
      # The format of the log and the cache must be known before the server.
      commonHttpConfig = text.http;
      virtualHosts.nix-cache = {
        serverName = builtins.head cfg.serverNames;
        serverAliases = builtins.tail cfg.serverNames;
        extraConfig = text.server;
      }
      // lib.optionalAttrs (!usual) {
        listen = map (addr: { inherit addr; port = cfg.listenPort; })
          cfg.listenAddresses;
      };
    };

    systemd.services.nginx = lib.mkIf elsewhere {
      serviceConfig.ReadWritePaths = [ cacheDir ];
      unitConfig.RequiresMountsFor = [ cacheDir ];
    };
    systemd.tmpfiles.rules = lib.optional elsewhere
      "d ${cacheDir} 0700 ${nginx.user} ${nginx.group} -";

    networking.firewall.allowedTCPPorts =
      lib.optional cfg.openFirewall cfg.listenPort;
  };
}
