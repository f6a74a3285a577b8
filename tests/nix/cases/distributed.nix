# A coordinator and one builder, as in the documentation. Keys are put in by
# the test: these are placeholders of the right form.
let
  # There is no world outside.
  alone = { lib, ... }: { nix.settings.substituters = lib.mkForce [ ]; };
  hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHOSTKEY";
  coordinator = settings: {
    imports = [ alone ];
    services.nix-builder.coordinator = {
      enable = true;
      sshKeyPath = "/var/secrets/builder-key";
      signingKeyPath = "/var/secrets/signing-key";
      builders = [
        {
          hostname = "nix-01";
          systems = [ builtins.currentSystem ];
          maxJobs = 2;
          publicHostKey = hostKey;
        }
      ];
    } // settings;
    services.nix-builder.harmonia = {
      enable = true;
      signKeyPath = "/var/secrets/signing-key";
    };
    # Beside the cache of this machine's own store, one to send things to.
    services.nix-queued.targets.disk.url = "file:///srv/nix-cache";
    # Nix 2.8, which Debian has, lets nobody else add signatures to the store.
    nix.settings.trusted-users = [ "nix-queued" ];
    users.users.alice.isNormalUser = true;
  };
in
{
  coordinator.module = coordinator { };
  onlyRemote.module = coordinator { enableLocalBuilds = false; };

  builder.module = {
    imports = [ alone ];
    services.nix-builder.builder = {
      enable = true;
      authorizedKeys = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPLACEHOLDER nas-01"
      ];
      maxJobs = 2;
    };
  };
}
