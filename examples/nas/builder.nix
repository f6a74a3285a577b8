# A machine that builds for nas-01, and takes what nas-01 has.
{
  services.nix-builder.builder = {
    enable = true;
    # The public half of nas-01's /run/agenix/nix-builder-ssh-key.
    authorizedKeys = [ "ssh-ed25519 AAAAREPLACEWITHTHEPUBLICKEYOFNAS01 nas-01" ];
    maxJobs = 4;
    # All of them for each build.
    cores = 0;
  };

  services.nix-builder.client = {
    enable = true;
    cacheUrl = "http://nas-01:80";
    publicKey = "nas-01-cache:REPLACE+BY+THE+PUBLIC+KEY+OF+NAS01+0000000A=";
  };

  nix.gc = {
    automatic = true;
    dates = "daily";
    options = "--delete-older-than 7d";
  };
}
