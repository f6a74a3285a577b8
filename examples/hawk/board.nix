# One of the boards: it builds for hawk and for itself, and asks hawk first
# whether another board has built it already.
{
  services.nix-builder.builder = {
    enable = true;
    # The public halves of /etc/nix/builder-key of hawk and of a laptop.
    authorizedKeys = [
      "ssh-ed25519 AAAAREPLACEWITHTHEPUBLICKEYOFHAWK hawk-nix-builder"
      "ssh-ed25519 AAAAREPLACEWITHTHEPUBLICKEYOFCALYPSO calypso-nix-builder"
    ];
    maxJobs = 6;
  };

  services.nix-builder.client = {
    enable = true;
    cacheUrl = "http://hawk.internal:5000";
    publicKey = "hawk.internal:REPLACE+BY+THE+PUBLIC+KEY+OF+HAWK+00000000A=";
    # What hawk is about to upload is asked for again soon.
    failFast.negativeTtl = 60;
  };

  nix.gc = {
    automatic = true;
    dates = "daily";
    options = "--delete-older-than 7d";
  };
}
