# services.nix-builder.builder.
let
  builder = settings: {
    services.nix-builder.builder = { enable = true; } // settings;
  };
  refused = module: fails: { inherit module fails; };
  key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9WYCeJ8qXb nas-01";
in
{
  absent.module = { };
  usual.module = builder { authorizedKeys = [ key ]; };
  noKeys.module = builder { };
  restrictedKey.module = builder {
    authorizedKeys = [ "from=\"10.0.0.0/8\" ${key}\n" ];
    authorizedKeyFiles = [ ./builder.nix ];
  };
  tuned.module = builder {
    user = "remote";
    authorizedKeys = [ key ];
    forceCommand = false;
    maxJobs = "auto";
    cores = 0;
    emulatedSystems = [ "aarch64-linux" ];
  };

  privateKey = refused
    (builder {
      authorizedKeys = [ "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb" ];
    })
    "which is no public key, so the coordinator could not log in";
  path = refused (builder { authorizedKeys = [ "/run/agenix/key.pub" ]; })
    "for files there is authorizedKeyFiles";
  root = refused (builder { user = "root"; })
    "user is root: coordinators would get all of this machine";
  wrongType = refused (builder { maxJobs = "many"; }) "maxJobs";
}
