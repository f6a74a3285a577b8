# The MacBook. launchd hands no secrets to services: the two keys have to be
# readable for the user of the daemon,
#   sudo chown _nix-queued /etc/nix/signing-key /etc/nix/push-key
#   sudo chmod 400 /etc/nix/signing-key /etc/nix/push-key
# and the server's host key has to be in the file of known hosts:
#   ssh-keyscan -t ed25519 server | sudo tee /etc/nix-queued/known_hosts
{
  networking.hostName = "macbook";

  services.nix-builder.client = {
    enable = true;
    cacheUrl = "http://server:5000";
    publicKey = "server-cache-1:REPLACE+BY+THE+PUBLIC+KEY+OF+SERVER+000000A=";
    # As the server itself says: after cache.nixos.org.
    priority = 50;
  };

  services.nix-queued = {
    enable = true;
    signing.keyFiles = [ "/etc/nix/signing-key" ];
    targets.server = {
      url = "ssh-ng://nix-push@server";
      sshKeyFile = "/etc/nix/push-key";
      sshKnownHostsFile = "/etc/nix-queued/known_hosts";
      # So that the server's garbage collector leaves it alone.
      pinRemote = true;
    };
  };
}
