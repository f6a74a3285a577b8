# Configurations of services.nix-queued that must not get through, and what
# is said about each.
let
  agent = settings: { services.nix-queued = { enable = true; } // settings; };
  web = { targets.web.url = "https://cache.example.org"; };
  none = "00000000000000000000000000000000";
  stored = "/nix/store/${none}-key";
in
{
  noTarget = {
    module = agent { };
    fails = "services.nix-queued.targets is empty: name the caches that "
      + "paths go to";
  };

  noUrl = {
    module = agent { targets.web = { }; };
    fails = "The option `services.nix-queued.targets.web.url' was accessed "
      + "but has no value defined";
  };

  unknownOption = {
    module = agent (web // { instalHook = true; });
    fails = "The option `services.nix-queued.instalHook' does not exist";
  };

  unknownKeyOfTarget = {
    module = agent {
      targets.web = {
        url = "https://cache.example.org";
        tokenFile = "/run/keys/token";
      };
    };
    fails = "The option `services.nix-queued.targets.web.tokenFile' does not "
      + "exist";
  };

  wrongType = {
    module = agent (web // { installHook = "yes"; });
    fails = "A definition for option `services.nix-queued.installHook' is "
      + "not of type `boolean'";
  };

  wrongCompression = {
    module = agent {
      targets.web = {
        url = "https://cache.example.org";
        compression = "gzip";
      };
    };
    fails = "A definition for option "
      + "`services.nix-queued.targets.web.compression' is not of type "
      + "`null or one of \"zstd\", \"xz\", \"none\"'";
  };

  wrongAge = {
    module = agent (web // { roots.maxAge = "a month"; });
    fails = "A definition for option `services.nix-queued.roots.maxAge' is "
      + "not of type";
  };

  wrongNameOfTarget = {
    module = agent { targets."my cache".url = "https://cache.example.org"; };
    fails = "A definition for option `services.nix-queued.targets.\"my "
      + "cache\".name' is not of type";
  };

  keyInStore = {
    module = agent (web // { signing.keyFiles = [ stored ]; });
    fails = "is not of type `absolute path, as a string, of a file outside "
      + "of the Nix store'";
  };

  # A Nix path would be copied into the store.
  keyAsNixPath = {
    module = agent (web // { signing.keyFiles = [ ./agent.nix ]; });
    fails = "is not of type `absolute path, as a string, of a file outside "
      + "of the Nix store'";
  };

  sshKeyInStore = {
    module = agent {
      targets.nas = { url = "ssh://nas"; sshKeyFile = stored; };
    };
    fails = "A definition for option "
      + "`services.nix-queued.targets.nas.sshKeyFile' is not of type";
  };

  keyInStoreInSettings = {
    module = agent (web // { settings.signing.key-files = [ stored ]; });
    fails = "services.nix-queued: a key in signing.keyFiles is in the Nix "
      + "store, where everyone can read it";
  };

  tokenInStoreInSettings = {
    module = agent {
      settings.target = [
        {
          name = "web";
          url = "https://cache.example.org";
          bearer-token-file = stored;
        }
      ];
    };
    fails = "services.nix-queued: bearer-token-file of the target web is in "
      + "the Nix store";
  };

  twoHooks = {
    module = {
      imports = [ (agent web) ];
      nix.settings.post-build-hook = "/etc/nix/other-hook";
    };
    fails = "there are two: /etc/nix/other-hook "
      + "(nix.settings.post-build-hook) and "
      + "/nix/store/${none}-nix-queued/bin/queued-hook "
      + "(services.nix-queued)";
  };

  twoHooksInText = {
    module = {
      imports = [ (agent web) ];
      nix.extraOptions = ''
        keep-outputs = true
        post-build-hook = /etc/nix/other-hook
      '';
    };
    fails = "there are two: post-build-hook = /etc/nix/other-hook "
      + "(nix.extraOptions) and "
      + "/nix/store/${none}-nix-queued/bin/queued-hook";
  };

  # Without legacyScripts they are somebody else's.
  unknownLegacyScript = {
    module = {
      imports = [ (agent web) ];
      nix.settings.post-build-hook = "/etc/nix/upload-to-cache.sh";
    };
    fails = "there are two: /etc/nix/upload-to-cache.sh "
      + "(nix.settings.post-build-hook)";
  };

  noSuchGroup = {
    module = agent (web // { queue.adminGroup = "admins"; });
    fails = "services.nix-queued.queue.adminGroup: there is no group "
      + "`admins` in users.groups";
  };

  notAllowed = {
    module = {
      imports = [ (agent web) ];
      nix.settings.allowed-users = [ "@wheel" ];
    };
    fails = "nix.settings.allowed-users keeps `nix-queued` from talking to "
      + "the Nix daemon";
  };

  # The modules know where they belong.
  onTheWrongSystem = {
    class = "darwin";
    base = [ (import ../../../nixos-module { }).nixosModules.nix-queued ];
    module = agent web;
    fails = "cannot be imported into a module evaluation that expects class "
      + "\"darwin\"";
  };

  macWithoutTarget = {
    class = "darwin";
    module = agent { };
    fails = "services.nix-queued.targets is empty";
  };

  macWithTwoHooks = {
    class = "darwin";
    module = {
      imports = [ (agent web) ];
      nix.settings.post-build-hook = "/etc/nix/other-hook";
    };
    fails = "there are two: /etc/nix/other-hook";
  };

  stateDirInSettings = {
    module = agent (web // { settings.state-dir = "/srv/queue"; });
    fails = "services.nix-queued.settings.state-dir is /srv/queue: the hook "
      + "would not know. Set services.nix-queued.stateDir instead";
  };

  macWithoutNix = {
    class = "darwin";
    module = {
      imports = [ (agent web) ];
      nix.enable = false;
    };
    fails = "nix.conf is not written here (nix.enable = false). Put "
      + "post-build-hook = /nix/store/${none}-nix-queued/bin/queued-hook";
  };

  # systemd's words mean nothing to launchd.
  macWithSystemdTime = {
    class = "darwin";
    module = agent (web // { prune.dates = "weekly"; });
    fails = "The option `services.nix-queued.prune.dates' does not exist";
  };
}
