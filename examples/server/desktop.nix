# A client of the server.
{
  services.nix-builder.client = {
    enable = true;
    cacheUrl = "http://server:5000";
    publicKey = "server-cache-1:REPLACE+BY+THE+PUBLIC+KEY+OF+SERVER+000000A=";
    # As the server itself says: after cache.nixos.org.
    priority = 50;
  };

  services.nix-builder.utilities.enable = true;
}
