# services.nix-builder.{harmonia,proxy,uploadEndpoint}.
let
  harmonia = settings: {
    services.nix-builder.harmonia = { enable = true; } // settings;
  };
  proxy = settings: {
    services.nix-builder.proxy = {
      enable = true;
      resolver = [ "192.168.1.1" ];
    } // settings;
  };
  uploads = settings: {
    services.nix-builder.uploadEndpoint = { enable = true; } // settings;
  };
  refused = module: fails: { inherit module fails; };
  key = "/var/lib/secrets/harmonia.secret";
  inStore = "/nix/store/00000000000000000000000000000000-thing";
in
{
  absent.module = { };

  harmonia.module = harmonia { signKeyPath = key; };
  harmoniaFlat = {
    module = harmonia { signKeyPath = key; };
    flatHarmonia = true;
  };
  harmoniaTuned.module = harmonia {
    port = 5001;
    address = "127.0.0.1";
    signKeyPaths = [ "/var/lib/old" "/var/lib/new" ];
    workers = 8;
    maxConnections = 100;
    priority = 50;
    openFirewall = true;
  };
  unsigned.module = harmonia { };
  signedByAgent.module = {
    imports = [ (harmonia { }) ];
    services.nix-queued = {
      enable = true;
      signing.keyFiles = [ key ];
      targets.own.url = "local:http://127.0.0.1:5000";
    };
  };
  agenix.module = { lib, ... }: {
    imports = [ (harmonia { }) ];
    options.age = lib.mkOption { type = lib.types.attrs; };
    config.age.secrets.harmonia-signing-key.path =
      "/run/agenix/harmonia-signing-key";
  };
  tailnet.module = {
    imports = [
      (harmonia { signKeyPath = key; })
      (proxy { listenPort = 8080; })
    ];
    services.tailscale.enable = true;
  };
  tailnetWithoutProxy.module = {
    imports = [ (harmonia { signKeyPath = key; }) ];
    services.tailscale.enable = true;
  };
  noTailnet.module = {
    imports = [ (harmonia { signKeyPath = key; tailnetHostname = null; }) ];
    services.tailscale.enable = true;
  };

  proxy.module = {
    imports = [ (proxy { }) ];
    networking.hostName = "nas-01";
  };
  proxyElsewhere.module = proxy {
    listenPort = 8080;
    cacheDir = "/ssdpool/local/nix-cache-proxy";
    openFirewall = true;
  };

  uploads.module = uploads { };
  proxyAndUploads.module = {
    imports = [
      (proxy { cacheDir = "/ssdpool/local/nix-cache-proxy"; })
      (uploads {
        directory = "/ssdpool/local/nix-cache/upload";
        openFirewall = true;
      })
    ];
  };

  keyInStore = refused
    (harmonia { signKeyPath = inStore; })
    "harmonia.signKeyPath is ${inStore}: everybody";
  noResolver = refused (proxy { resolver = [ ]; })
    "resolver is empty, so nginx could not look up https://cache.nixos.org";
  noResolverByDefault = refused { services.nix-builder.proxy.enable = true; }
    "It does not read /etc/resolv.conf: name your DNS server";
  wrongSize = refused (proxy { maxSize = "100 GB"; }) "maxSize";
  wrongTime = refused (proxy { validity = "a month"; }) "validity";
  wrongLog = refused (proxy { accessLog = "journal"; }) "accessLog";
  noUpstreamUrl = refused (proxy { upstream = "cache.nixos.org"; })
    "upstream: `cache.nixos.org' is no URL";
  cacheInStore = refused
    (proxy { cacheDir = inStore; })
    "in the Nix store, where nginx cannot write";
  nobodyUploads = refused (uploads { allowedNetworks = [ ]; })
    "allowedNetworks is empty and there is no basicAuthFile";
  passwordsInStore = refused
    (uploads { basicAuthFile = inStore; })
    "basicAuthFile is ${inStore}: everybody";
  uploadsInStore = refused
    (uploads { directory = inStore; })
    "uploadEndpoint.directory is /nix/store/";
}
