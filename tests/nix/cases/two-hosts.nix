# Two machines: one builds and pushes what it has built, the other keeps and
# serves it. Both are what the documentation shows, but for addresses and for
# what has to go quickly. Keys are put in by the test: these are placeholders
# of the right form.
let
  publicKey = "two-hosts-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPLACEHOLDER client";
  hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHOSTKEY";
  client = { lib, ... }: {
    services.nix-builder.client = {
      enable = true;
      cacheUrl = "http://nix-cache";
      inherit publicKey;
      # What was built a moment ago is asked for again soon.
      failFast.negativeTtl = 0;
    };
    # There is no world outside.
    nix.settings.substituters = lib.mkForce [ "http://nix-cache" ];
    # Nix 2.8, which Debian has, lets nobody else add signatures to the store,
    # and what is pushed over SSH goes as it is in the store.
    nix.settings.trusted-users = [ "nix-queued" ];

    services.nix-queued = {
      enable = true;
      signing.keyFiles = [ "/var/secrets/signing-key" ];
      targets = {
        store = {
          url = "ssh-ng://nix-push@nix-cache";
          sshKeyFile = "/var/secrets/ssh-key";
          pinRemote = true;
        };
        uploads = {
          url = "http://nix-cache:8081";
          netrcFile = "/var/secrets/netrc";
          exclude = [ "only-pushed-*" ];
        };
      };
      queue.adminGroup = lib.mkDefault "wheel";
      settings.retry.max-delay = "2s";
    };

    programs.ssh.knownHosts.nix-cache.publicKey = hostKey;
    users.users.alice = {
      isNormalUser = true;
      extraGroups = [ "wheel" ];
    };
    users.users.mallory.isNormalUser = true;
  };
  using = settings: {
    imports = [ client ];
    services.nix-queued = settings;
  };
  hookNamed = name: {
    imports = [ (using { legacyScripts.enable = true; }) ];
    nix.settings.post-build-hook = "/etc/nix/${name}";
  };
in
{
  client.module = client;

  clientAlone.module = using { queue.adminGroup = null; };
  clientWithPlainPaths.module = using { loadCredentials = false; };
  clientWithPinScript.module = hookNamed "pin-arm-cache.sh";
  clientWithUploadScript.module = hookNamed "upload-to-cache.sh";

  # Old roots go at once, there as well.
  clientThatPrunes.module = using { settings.prune.interval = "1s"; };

  cacheHost.module = {
    services.nix-builder.harmonia = {
      enable = true;
      address = "127.0.0.1";
      signKeyPath = "/var/secrets/signing-key";
    };
    services.nix-builder.proxy = {
      enable = true;
      serverNames = [ "nix-cache" ];
      resolver = [ "127.0.0.1" ];
      cacheDir = "/ssdpool/local/nix-cache-proxy";
      upstream = "http://127.0.0.1:8090";
    };
    services.nix-builder.uploadEndpoint = {
      enable = true;
      directory = "/ssdpool/local/nix-cache/upload";
      allowedNetworks = [ "10.7.0.0/24" ];
      basicAuthFile = "/var/secrets/htpasswd";
    };

    services.nix-builder.populate = {
      enable = true;
      flake = "/srv/flake";
      user = "flake";
      outputs = [ "thing" ];
      updateLock = true;
    };
    users.users.flake = {
      isSystemUser = true;
      group = "flake";
      home = "/srv/flake";
      createHome = true;
    };
    users.groups.flake = { };

    # A login for pushing, which Nix does not trust.
    services.openssh.enable = true;
    users.users.nix-push = {
      isSystemUser = true;
      group = "nix-push";
      home = "/var/lib/nix-push";
      createHome = true;
      useDefaultShell = true;
      openssh.authorizedKeys.keys = [ "restrict ${sshKey}" ];
    };
    users.groups.nix-push = { };
    systemd.tmpfiles.rules = [
      "d /nix/var/nix/gcroots/arm-cache 0755 nix-push nix-push -"
    ];
    nix.settings.trusted-public-keys = [ publicKey ];
  };
}
