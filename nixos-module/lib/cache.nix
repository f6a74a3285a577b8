# Where the cache is and which key its paths are signed with: the one place to
# edit when either changes.
{
  url = "http://nas-01:80";
  publicKey = "nas-01-cache:p+D+bL6JFK+kHmLm6YAZOC0zfVQspOG/R8ZDIkb8Kug=";

  # What the proxy says in its nix-cache-info. Nix asks caches with lower
  # numbers first.
  priority = 30;

  # Whom the proxy asks for what nobody built here. Its signatures pass through
  # unchanged, so clients keep its key.
  upstream = {
    url = "https://cache.nixos.org";
    publicKey = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
    priority = 40;
  };
}
