# The PC: x86_64 is built here, aarch64 on the boards.
let
  board = hostname: publicHostKey: {
    inherit hostname publicHostKey;
    systems = [ "aarch64-linux" ];
    # Eight cores; some of them have other work.
    maxJobs = 6;
    speedFactor = 2;
    supportedFeatures = [ "big-parallel" ];
  };
  signingKey = "/var/lib/harmonia/cache-priv-key.pem";
in
{
  services.nix-builder.coordinator = {
    enable = true;
    sshKeyPath = "/etc/nix/builder-key";
    signingKeyPath = signingKey;
    builders = [
      (board "opi01.internal" "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFOPI01")
      (board "opi02.internal" "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFOPI02")
      (board "opi03.internal" "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFOPI03")
    ];
  };

  # Only what was built for the boards is kept: builds for this machine come
  # from cache.nixos.org anyway. Each root lasts for 30 days after the last
  # build, and is pruned by a weekly timer.
  services.nix-queued = {
    roots.systems = [ "aarch64-linux" ];
    roots.maxAge = "30d";
    prune.dates = "weekly";
  };
  nix.gc = {
    automatic = true;
    dates = "daily";
    options = "--delete-older-than 7d";
  };

  services.nix-builder.harmonia = {
    enable = true;
    signKeyPath = signingKey;
    tailnetHostname = null;
    openFirewall = true;
  };

  services.nix-builder.utilities.enable = true;
}
