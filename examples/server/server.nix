# The server.
let
  # What others push here is kept by links in this directory.
  roots = "/nix/var/nix/gcroots/arm-cache";
in
{
  services.nix-builder.harmonia = {
    enable = true;
    signKeyPath = "/var/lib/secrets/harmonia.secret";
    # cache.nixos.org has 40: it is asked first, and this one for the rest.
    priority = 50;
    tailnetHostname = null;
  };
  # The port is open in the tailnet alone.
  services.tailscale.enable = true;
  networking.firewall.interfaces.tailscale0.allowedTCPPorts = [ 5000 ];

  services.nix-builder.populate = {
    enable = true;
    flake = "/srv/flake";
    # A timer runs this as the owner of the clone.
    user = "flake";
    updateLock = true;
    outputs = [
      "nixosConfigurations.desktop.config.system.build.toplevel"
      "nixosConfigurations.server.config.system.build.toplevel"
    ];
    dates = "daily";
  };
  users.users.flake = {
    isSystemUser = true;
    group = "flake";
    home = "/srv/flake";
  };
  users.groups.flake = { };

  # What was pushed and what was populated has roots; the rest goes.
  nix.gc = {
    automatic = true;
    dates = "weekly";
    options = "--delete-older-than 30d";
  };

  # Who pushes. It needs a shell, to make roots for what it has sent. Nix does
  # not trust it: it takes what the MacBook or CI has signed, and nothing else.
  users.users.nix-push = {
    isSystemUser = true;
    group = "nix-push";
    home = "/var/lib/nix-push";
    createHome = true;
    useDefaultShell = true;
    openssh.authorizedKeys.keys = [
      "restrict ssh-ed25519 AAAAREPLACEWITHTHEPUBLICKEYOFMACBOOK macbook"
      "restrict ssh-ed25519 AAAAREPLACEWITHTHEPUBLICKEYOFCI ci"
    ];
  };
  users.groups.nix-push = { };
  services.openssh.enable = true;
  systemd.tmpfiles.rules = [ "d ${roots} 0755 nix-push nix-push -" ];
  nix.settings.trusted-public-keys = [
    "macbook-1:REPLACE+BY+THE+PUBLIC+KEY+OF+MACBOOK+00000A="
    "ci-1:REPLACE+BY+THE+PUBLIC+KEY+OF+CI+0000000000A="
  ];

  services.nix-builder.utilities.enable = true;
}
