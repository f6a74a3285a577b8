# Any other machine: it takes paths from nas-01, and does without when it must.
{
  services.nix-builder.client = {
    enable = true;
    # In the tailnet; "http://nas-01:80" in the local network.
    cacheUrl = "http://nix-cache";
    publicKey = "nas-01-cache:REPLACE+BY+THE+PUBLIC+KEY+OF+NAS01+0000000A=";
  };

  services.nix-builder.utilities.enable = true;
}
