# What a client of the cache has to be told, as settings of nix.conf.
let
  cache = import ./cache.nix;

  # Unreachable caches must neither block nor fail a build.
  failFastSettings =
    {
      enable ? true,
      # Seconds until a cache that does not answer is given up.
      connectTimeout ? 2,
      httpConnections ? 25,
      # Build what cannot be downloaded.
      fallback ? true,
      # Seconds for which "the cache does not have it" is believed. A path that
      # is uploaded meanwhile stays invisible to this client for so long.
      negativeTtl ? 3600,
    }:
    if !enable then
      { }
    else
      {
        connect-timeout = connectTimeout;
        http-connections = httpConnections;
        inherit fallback;
        narinfo-cache-negative-ttl = negativeTtl;
      };

  # A server says its own priority in nix-cache-info, and the proxy says the
  # usual one: only another needs to be written down.
  withPriority = url: priority:
    let
      separator = if builtins.match ".*[?].*" url == null then "?" else "&";
    in
    if priority == cache.priority then url
    else "${url}${separator}priority=${toString priority}";
in
{
  cacheUrl ? cache.url,
  publicKey ? cache.publicKey,
  priority ? cache.priority,
  extraSubstituters ? [ cache.upstream.url ],
  extraPublicKeys ? [ ],
  failFast ? { },
}:
{
  substituters = [ (withPriority cacheUrl priority) ] ++ extraSubstituters;
  trusted-public-keys = [
    publicKey
    cache.upstream.publicKey
  ] ++ extraPublicKeys;
}
// failFastSettings failFast
