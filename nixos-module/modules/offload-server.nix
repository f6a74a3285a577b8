# services.offload-server: a desktop that builds for laptops, and serves them
# its store.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  name = "services.offload-server";
  cfg = config.services.offload-server;
  checks = import ../lib/checks.nix;
  nfsPorts = lib.optionals cfg.enableNFS [ 111 2049 ];
in
{
  _class = "nixos";
  imports = [
    ./builder.nix
    ./harmonia.nix
    ./utilities.nix
  ];

  options.services.offload-server = {
    enable = lib.mkEnableOption
      "building for laptops, and serving them the Nix store";

    cachePort = mkOption {
      type = types.port;
      default = 5000;
      description = "The port of the cache.";
    };

    builderUser = mkOption {
      type = types.str;
      default = "nix-builder";
      description = "The user that laptops log in as.";
    };

    cacheKeyPath = mkOption {
      type = types.path;
      default = "/var/cache-priv-key.pem";
      description = ''
        The secret key that the cache signs with. `offload-generate-cache-keys`
        makes it; until then the cache does not start.
      '';
    };

    enableNFS = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to export /nix/store, read-only, to nfsAllowed.";
    };

    nfsAllowed = mkOption {
      type = types.listOf types.str;
      default = [ "192.168.15.0/24" ];
      description = "The networks that may mount it.";
    };

    authorizedKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "The public keys of the laptops.";
    };

    authorizedKeyFiles = mkOption {
      type = types.listOf types.path;
      default = [ ];
      description = "Files with public keys of laptops.";
    };

    cacheBackend = mkOption {
      type = types.enum [
        "nix-serve"
        "harmonia"
      ];
      default = "nix-serve";
      description = ''
        The server to use. Harmonia is faster, and answers many requests at
        once without trouble.
      '';
    };

    cacheWorkers = mkOption {
      type = types.ints.positive;
      default = 4;
      description = "How many processes or threads it has.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether others may reach the cache and, with enableNFS, NFS. That of
        SSH is `services.openssh.openFirewall`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      (checks.outsideStore "${name}.cacheKeyPath" cfg.cacheKeyPath)
      {
        assertion = cfg.enableNFS -> cfg.nfsAllowed != [ ];
        message = ''
          ${name}: enableNFS is true but nfsAllowed is empty: nobody could mount
          the store ("access denied by server"). Name your network, for instance
          [ "192.168.1.0/24" ], or set enableNFS = false.
        '';
      }
    ];

    services.nix-builder = {
      builder = {
        enable = true;
        user = cfg.builderUser;
        inherit (cfg) authorizedKeys authorizedKeyFiles;
      };
      harmonia = lib.mkIf (cfg.cacheBackend == "harmonia") {
        enable = true;
        port = cfg.cachePort;
        workers = cfg.cacheWorkers;
        signKeyPath = cfg.cacheKeyPath;
        tailnetHostname = lib.mkDefault null;
      };
      # For offload-server-status, offload-generate-cache-keys, ...
      utilities.enable = lib.mkDefault true;
    };

    services.nix-serve = lib.mkIf (cfg.cacheBackend == "nix-serve") {
      enable = true;
      port = cfg.cachePort;
      secretKeyFile = toString cfg.cacheKeyPath;
      # It reads no variable for this.
      extraParams = "--workers ${toString cfg.cacheWorkers}";
    };

    services.nfs.server = lib.mkIf cfg.enableNFS {
      enable = true;
      exports = "/nix/store"
        + lib.concatMapStrings
          (network: " ${network}(ro,all_squash,no_subtree_check)")
          cfg.nfsAllowed
        + "\n";
    };

    networking.firewall = lib.mkIf cfg.openFirewall {
      allowedTCPPorts = [ cfg.cachePort ] ++ nfsPorts;
      allowedUDPPorts = nfsPorts;
    };
  };
}
