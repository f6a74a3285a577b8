# The cache host and coordinator.
#
# Secrets are files that only root may read, wherever they come from: agenix,
# sops-nix, or a hand that copies them.
let
  # From /etc/ssh/ssh_host_ed25519_key.pub of each builder.
  builder = hostname: publicHostKey: {
    inherit hostname publicHostKey;
    maxJobs = 4;
  };
in
{
  # A server of this machine's own store. Only the proxy has to reach it.
  services.nix-builder.harmonia = {
    enable = true;
    address = "127.0.0.1";
    signKeyPath = "/run/agenix/harmonia-signing-key";
    # Makes http://nix-cache, in a tailnet that has a service of that name.
    tailnetHostname = "nix-cache";
  };
  services.tailscale.enable = true;

  # One address for everything: what is here, then what upstream has, of which
  # it keeps copies.
  services.nix-builder.proxy = {
    enable = true;
    serverNames = [ "nix-cache" "nas-01" ];
    resolver = [ "192.168.1.1" ];
    cacheDir = "/ssdpool/local/nix-cache-proxy";
    maxSize = "100g";
    openFirewall = true;
  };

  # Builds go to the builders and come back, are signed, and stay for 30 days
  # whatever the garbage collector does.
  services.nix-builder.coordinator = {
    enable = true;
    sshKeyPath = "/run/agenix/nix-builder-ssh-key";
    signingKeyPath = "/run/agenix/harmonia-signing-key";
    enableLocalBuilds = true;
    builders = [
      (builder "nix-01" "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFNIX01" // {
        # Fast disks: asked first.
        speedFactor = 2;
      })
      (builder "nix-02" "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFNIX02")
      (builder "nix-03" "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFNIX03")
    ];
  };

  nix.gc = {
    automatic = true;
    dates = "daily";
    options = "--delete-older-than 7d";
  };

  services.nix-builder.utilities.enable = true;
}
