# services.nix-builder.client.
let
  client = settings: {
    services.nix-builder.client = { enable = true; } // settings;
  };
  both = name: module: {
    ${name} = { inherit module; };
    "${name}OnMac" = { inherit module; class = "darwin"; };
  };
  refused = module: fails: { inherit module fails; };
  good = "second:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
in
both "absent" { }
// both "defaults" (client { })
// both "otherPriority" (client {
  cacheUrl = "http://nix-cache";
  priority = 20;
})
// both "more" (client {
  extraSubstituters = [
    "https://cache.nixos.org"
    "http://second:5000"
  ];
  extraPublicKeys = [ good ];
  failFast = {
    connectTimeout = 5;
    httpConnections = 50;
    fallback = false;
    negativeTtl = 0;
  };
})
// both "slow" (client { failFast.enable = false; })
// {
  # What somebody sets himself comes before our defaults.
  ownTimeout.module = {
    imports = [ (client { }) ];
    nix.settings.connect-timeout = 30;
  };

  wrongType = refused (client { priority = "high"; })
    "services.nix-builder.client.priority";
  misspelt = refused (client { cacheURL = "http://x"; })
    "services.nix-builder.client.cacheURL";
  noScheme = refused (client { cacheUrl = "nas-01:80"; })
    "Write the scheme as well, for instance `http://nas-01:80'";
  nameOnly = refused (client { publicKey = "nas-01-cache"; })
    "publicKey has `nas-01-cache', which is no public key";
  secretKey = refused
    (client {
      publicKey = "k-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY6"
        + "NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjA==";
    })
    "publicKey has a secret key, k-1:";
  extraKey = refused (client { extraPublicKeys = [ good "second:short" ]; })
    "extraPublicKeys has `second:short', which is no public key";

  # nix-darwin itself refuses to be asked about `nix` then.
  nixOffOnMac = {
    class = "darwin";
    module = {
      imports = [ (client { }) ];
      nix.enable = false;
    };
    fails = "nix.enable";
  };
}
