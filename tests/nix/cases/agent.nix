# Configurations of services.nix-queued that are right.
let
  agent = settings: { services.nix-queued = { enable = true; } // settings; };
  web = { targets.web.url = "https://cache.example.org"; };
in
{
  disabled.module = { };

  minimal.module = agent web;

  # Every target, with all that is secret.
  full.module = agent {
    signing.keyFiles = [ "/run/keys/first" "/run/keys/100%" ];
    targets = {
      nas = {
        url = "ssh-ng://nix-ssh@nas";
        sshKeyFile = "/run/keys/nas";
        sshKnownHostsFile = "/etc/nix-queued/known_hosts";
        sshOptions = [ "Compression=yes" ];
        pinRemote = true;
        batchSize = "1 GiB";
      };
      web = {
        url = "https://cache.example.org";
        bearerTokenFile = "/run/keys/token";
        netrcFile = "/run/keys/netrc";
        clientCertificateFile = "/run/keys/client.pem";
        clientKeyFile = "/run/keys/client-key.pem";
        caFile = "/etc/ssl/our-ca.pem";
        compression = "xz";
        compressionLevel = 9;
        include = [ "linux-*" "say \"hi\"" ];
        maxNarSize = 1000000;
        skipSignedBy = [ "cache.nixos.org-1" ];
        wantMassQuery = false;
      };
      disk.url = "file:///srv/nix-cache";
      own.url = "local:http://127.0.0.1:5000";
    };
    roots = {
      systems = [ "aarch64-linux" ];
      maxAge = "14d";
    };
    prune = {
      dates = "daily";
      persistent = false;
      randomizedDelaySec = "5min";
    };
    settings = {
      log-level = "debug";
      concurrency.uploads = 4;
      history.keep = "7d";
    };
  };

  plainPaths.module = agent (web // {
    loadCredentials = false;
    signing.keyFiles = [ "/var/lib/keys/first" ];
  });

  # What is only in `settings` is treated like the options.
  settingsOnly.module = agent {
    settings = {
      signing.key-files = [ "/run/keys/first" ];
      target = [
        {
          url = "https://cache.example.org";
          bearer-token-file = "/run/keys/token";
          netrc-file = "$CREDENTIALS_DIRECTORY/mine";
        }
      ];
      roots.max-age = "90d";
    };
  };

  onlyRoots.module = agent { settings.target = [ ]; };

  elsewhere.module = agent (web // {
    stateDir = "/srv/queue";
    roots.directory = "/nix/var/nix/gcroots/uploads";
    strict = true;
    user = "builder";
    group = "builders";
  });

  adminGroup.module = agent (web // { queue.adminGroup = "wheel"; });

  noPrune.module = agent (web // { prune.enable = false; });

  ownHook.module = {
    imports = [ (agent (web // { installHook = false; })) ];
    nix.settings.post-build-hook = "/etc/nix/hook";
  };

  legacyScripts.module = {
    imports = [ (agent (web // { legacyScripts.enable = true; })) ];
    nix.settings.post-build-hook = "/etc/nix/upload-to-cache.sh";
  };

  oldNix.module = { pkgs, ... }: {
    imports = [
      (agent (web // { signing.keyFiles = [ "/run/keys/first" ]; }))
    ];
    nix.package = pkgs.nix // { version = "2.11.1"; };
  };

  mac = {
    class = "darwin";
    module = agent {
      signing.keyFiles = [ "/etc/nix/cache-priv-key.pem" ];
      targets.server = {
        url = "ssh://nix-ssh@server";
        sshKeyFile = "/etc/nix/upload-key";
      };
      legacyScripts.enable = true;
    };
  };

  # As with an installer that manages Nix itself.
  macWithoutNix = {
    class = "darwin";
    module = {
      imports = [ (agent (web // { installHook = false; })) ];
      nix.enable = false;
    };
  };

  macMinimal = {
    class = "darwin";
    module = agent (web // {
      user = "root";
      group = "wheel";
      prune.enable = false;
    });
  };
}
