# The laptop. What it builds itself goes to the desktop as well, whenever that
# is there: the queue waits for weeks if it must.
{
  services.laptop-builder-client = {
    enable = true;
    desktopIP = "192.168.15.6";
    builderKeyPath = "/etc/nix/builder_key";
    # Of eight cores; 0 would mean that nothing is built while the desktop is
    # off.
    maxJobs = 4;
    cachePublicKey = "desktop-1:REPLACE+BY+THE+PUBLIC+KEY+OF+DESKTOP+00000A=";
    publicHostKey = "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFDESKTOP";
  };

  services.nix-queued = {
    enable = true;
    signing.keyFiles = [ "/etc/nix/laptop-signing-key" ];
    targets.desktop = {
      url = "ssh-ng://nix-push@192.168.15.6";
      sshKeyFile = "/etc/nix/push-key";
      # The desktop keeps it for 30 days after that.
      pinRemote = true;
    };
  };

  services.nix-builder.utilities.enable = true;
}
