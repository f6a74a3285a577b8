# services.nix-builder.coordinator.
let
  coordinator = settings: {
    services.nix-builder.coordinator = {
      enable = true;
      sshKeyPath = "/run/agenix/nix-builder-ssh-key";
    } // settings;
  };
  refused = module: fails: { inherit module fails; };
  one = [ { hostname = "nix-01"; } ];
  withJobs = maxJobs: coordinator {
    builders = [ { hostname = "nix-01"; inherit maxJobs; } ];
  };
  inStore = "/nix/store/00000000000000000000000000000000-key";
in
{
  absent.module = { };

  # As in the documentation: everything by default but the keys.
  usual.module = coordinator {
    signingKeyPath = "/run/agenix/harmonia-signing-key";
    enableLocalBuilds = true;
    builders = [
      {
        hostname = "nix-01";
        systems = [ "x86_64-linux" ];
        maxJobs = 4;
        speedFactor = 1;
        supportedFeatures = [ "nixos-test" "benchmark" "big-parallel" "kvm" ];
      }
    ];
  };

  fleet.module = coordinator {
    builders = import ../../../nixos-module/lib/builders.nix;
  };

  boards.module = coordinator {
    localCache = "http://127.0.0.1:5000";
    builders = map
      (n: {
        hostname = "opi0${toString n}.internal";
        systems = [ "aarch64-linux" ];
        maxJobs = 6;
        speedFactor = 2;
        supportedFeatures = [ "big-parallel" ];
      })
      [ 1 2 3 ];
  };

  everything.module = coordinator {
    builders = [
      {
        hostname = "far.example.org";
        sshUser = "build";
        port = 2222;
        protocol = "ssh-ng";
        mandatoryFeatures = [ "gpu" ];
        supportedFeatures = [ "kvm" ];
        publicHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXb far";
        compression = true;
      }
    ];
  };

  noLocalBuilds.module = coordinator {
    enableLocalBuilds = false;
    builders = one;
  };

  noCache.module = coordinator {
    localCache = null;
    builders = one;
  };
  noCacheButKey.module = coordinator {
    localCache = null;
    signingKeyPath = "/run/agenix/harmonia-signing-key";
    builders = one;
  };
  onlySigning.module = coordinator {
    localCache = null;
    signingKeyPath = "/run/agenix/harmonia-signing-key";
  };
  upload.module = coordinator {
    localCache = "http://127.0.0.1:8081";
    localCacheUpload = true;
  };

  noSshKey = refused
    { services.nix-builder.coordinator = { enable = true; builders = one; }; }
    "sshKeyPath is not set: Nix could not log in to any builder";
  sshKeyInStore = refused
    (coordinator { sshKeyPath = inStore; })
    "sshKeyPath is ${inStore}: everybody";
  signingKeyInStore = refused
    (coordinator { signingKeyPath = inStore; })
    "signingKeyPath is ${inStore}: everybody";
  nobodyBuilds = refused (coordinator { enableLocalBuilds = false; })
    "enableLocalBuilds is false and builders is empty";
  twice = refused (coordinator { builders = one ++ one; })
    "names a machine twice (nix-01, nix-01)";
  noHostname = refused (coordinator { builders = [ { maxJobs = 4; } ]; })
    "hostname";
  misspelt = refused (coordinator { builders = [ { hostName = "nix-01"; } ]; })
    "hostName";
  wrongType = refused (withJobs "4") "maxJobs";
  noJobs = refused (withJobs 0) "maxJobs";
  hostKeyFile = refused
    (coordinator {
      builders = [ { hostname = "a"; publicHostKey = "/etc/ssh/key.pub"; } ];
    })
    "publicHostKey `/etc/ssh/key.pub' is no host key";
  uploadNowhere = refused
    (coordinator { localCache = null; localCacheUpload = true; })
    "localCacheUpload is true but localCache is null";

  # Nix runs one hook.
  twoHooks = refused
    {
      imports = [ (coordinator { }) ];
      nix.settings.post-build-hook = "/etc/nix/other-hook";
    }
    "/etc/nix/other-hook";
}
