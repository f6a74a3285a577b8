# services.laptop-builder-client, services.offload-server and
# services.nix-builder.binary-cache, and the names that people knew them by.
let
  laptop = settings: {
    services.laptop-builder-client = { enable = true; } // settings;
  };
  server = settings: {
    services.offload-server = { enable = true; } // settings;
  };
  caches = settings: {
    services.nix-builder.binary-cache = { enable = true; } // settings;
  };
  refused = module: fails: { inherit module fails; };
  key = name: "${name}:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  inStore = "/nix/store/00000000000000000000000000000000-key";
in
{
  absent.module = { };

  laptop.module = laptop { cachePublicKey = key "desktop"; };
  laptopDefaults.module = laptop { };
  laptopTuned.module = laptop {
    desktopIP = "desktop.lan";
    builderKeyPath = "/etc/nix/builder-key";
    maxJobs = 0;
    builderUser = "remote";
    desktopMaxJobs = 16;
    speedFactor = 3;
    systems = [ "x86_64-linux" "i686-linux" ];
    supportedFeatures = [ "kvm" ];
    publicHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXb desktop";
    cachePort = 5001;
    cachePublicKey = key "desktop";
    mountStore = true;
  };
  laptopOwnJobs.module = {
    imports = [ (laptop { }) ];
    nix.settings.max-jobs = 2;
  };

  server.module = server { };
  serverTuned.module = server {
    cachePort = 5001;
    builderUser = "remote";
    cacheKeyPath = "/var/lib/key";
    enableNFS = true;
    nfsAllowed = [ "10.0.0.0/8" "fd00::/8" ];
    authorizedKeys = [
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXb laptop"
    ];
    cacheBackend = "harmonia";
    cacheWorkers = 8;
    openFirewall = true;
  };

  caches.module = caches { local.publicKey = key "desktop"; };
  cachesDefaults.module = caches { };
  cachesRequired.module = caches { local.requireConnectivity = true; };
  # A plain list of caches with their keys.
  cachesPlain.module = caches {
    local.enable = false;
    remote.substituters = [
      "https://cache.nixos.org/"
      "https://nix-community.cachix.org"
      "http://cachy.local"
    ];
    remote.trustedPublicKeys = [
      "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
      "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
      (key "cachy.local")
    ];
  };
  cachesWithoutKeys.module = caches {
    local.enable = false;
    remote.trustedPublicKeys = [
      "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
      "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
    ];
  };
  cachesLocalOnly.module = caches {
    local.publicKey = key "desktop";
    remote.enable = false;
  };

  # --- Other names.
  kernelcore.module = {
    kernelcore.system.binary-cache = {
      enable = true;
      local = {
        enable = true;
        url = "http://192.168.15.6:5000";
        priority = 40;
        requireConnectivity = false;
      };
      remote = {
        enable = true;
        substituers = [ "https://nix-community.cachix.org" ];
        trustedPublicKeys = [
          "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
        ];
      };
    };
  };
  clubcotton.module = { config, ... }: {
    services.clubcotton.harmonia = {
      enable = true;
      port = 5001;
      workers = 8;
      maxConnections = 30;
      signKeyPath = "/run/agenix/harmonia-signing-key";
      tailnetHostname = null;
    };
    # They can be read as well.
    networking.firewall.allowedTCPPorts = [
      config.services.clubcotton.harmonia.port
    ];
  };

  laptopKeyInStore = refused (laptop { builderKeyPath = inStore; })
    "laptop-builder-client.builderKeyPath is ${inStore}: everybody";
  laptopCacheKey = refused (laptop { cachePublicKey = "desktop"; })
    "cachePublicKey has `desktop', which is no public key";
  serverKeyInStore = refused (server { cacheKeyPath = inStore; })
    "offload-server.cacheKeyPath is ${inStore}: everybody";
  serverNfsNobody = refused (server { enableNFS = true; nfsAllowed = [ ]; })
    "enableNFS is true but nfsAllowed is empty";
  serverBackend = refused (server { cacheBackend = "attic"; }) "cacheBackend";
  cachesKey = refused
    (caches { remote.trustedPublicKeys = [ "nix-community" ]; })
    "remote.trustedPublicKeys has `nix-community', which is no public key";
  kernelcoreType = refused
    {
      kernelcore.system.binary-cache = {
        enable = true;
        local.priority = "first";
      };
    }
    "binary-cache.local.priority";
  clubcottonUnknown = refused { services.clubcotton.harmonia.thread = 4; }
    "thread";
}
