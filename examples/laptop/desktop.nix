# The desktop.
{
  services.offload-server = {
    enable = true;
    cachePort = 5000;
    builderUser = "nix-builder";
    # offload-generate-cache-keys --name desktop-1 makes it.
    cacheKeyPath = "/var/cache-priv-key.pem";
    cacheBackend = "harmonia";
    # The public half of the laptop's /etc/nix/builder_key.
    authorizedKeys = [ "ssh-ed25519 AAAAREPLACEWITHTHEPUBLICKEYOFLAPTOP laptop" ];
    openFirewall = true;
  };

  # Who pushes what the laptop has built: a login of its own, since the one for
  # builds has no shell to make roots with.
  users.users.nix-push = {
    isSystemUser = true;
    group = "nix-push";
    home = "/var/lib/nix-push";
    createHome = true;
    useDefaultShell = true;
    openssh.authorizedKeys.keys = [
      "restrict ssh-ed25519 AAAAREPLACEWITHTHEPUSHKEYOFLAPTOP laptop-push"
    ];
  };
  users.groups.nix-push = { };
  systemd.tmpfiles.rules = [
    "d /nix/var/nix/gcroots/arm-cache 0755 nix-push nix-push -"
  ];
  nix.settings.trusted-public-keys = [
    "laptop-1:REPLACE+BY+THE+PUBLIC+KEY+OF+LAPTOP+000000A="
  ];
}
