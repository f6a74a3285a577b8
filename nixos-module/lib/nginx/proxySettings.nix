# The settings of the caching proxy, complete: whatever is left out gets its
# default, and an attribute that does not exist is an error.
let
  cache = import ../cache.nix;
in
{
  listenAddresses ? [
    "0.0.0.0"
    "[::]"
  ],
  listenPort ? 80,
  # Under which names clients know it.
  serverNames ? [
    "nix-cache"
    "nas-01"
  ],

  # The server of this machine's own store: asked first, never cached.
  localUrl ? "http://127.0.0.1:5000",
  # A directory that an upload endpoint fills: looked into before that.
  uploadDirectory ? null,
  # Which answers of the local server make us ask upstream. With 404 alone, a
  # local server that is down makes clients see errors instead of upstream.
  fallthroughOn ? [
    404
    500
    502
    503
    504
  ],

  upstream ? cache.upstream.url,
  # The certificate authorities that upstream's certificate is checked with.
  caFile ? "/etc/ssl/certs/ca-certificates.crt",
  # DNS servers. Upstream's name is looked up when it is needed, so that nginx
  # starts, and serves what it has, while there is no network.
  resolver ? [ "127.0.0.53" ],
  # Whether to use IPv6 addresses of upstream.
  upstreamIpv6 ? false,
  # When upstream cannot be reached, say "not found" for what is not cached, so
  # that clients go on at once instead of trying again.
  offlineMissAs404 ? false,

  # Where upstream's answers are kept, up to which size, and how much of the
  # disk is left free.
  cacheDir ? "/var/cache/nginx/nix-cache-proxy",
  maxSize ? "100g",
  minFree ? "1g",
  # How long a copy is good without asking upstream again, how long one that
  # nobody asks for is kept, and how long "not found" is believed.
  validity ? "30d",
  inactive ? "30d",
  negativeTtl ? "1m",
  # How long clients wait for another one's download of the same file. Below
  # Nix's stalled-download-timeout, which is 300 seconds.
  lockTimeout ? "60s",

  # What nix-cache-info says.
  priority ? cache.priority,
  storeDir ? "/nix/store",

  # "syslog" (that is the journal), "file" or "off".
  accessLog ? "syslog",
  accessLogFile ? "/var/log/nginx/access.log",
}:
{
  inherit
    listenAddresses
    listenPort
    serverNames
    localUrl
    uploadDirectory
    fallthroughOn
    upstream
    caFile
    resolver
    upstreamIpv6
    offlineMissAs404
    cacheDir
    maxSize
    minFree
    validity
    inactive
    negativeTtl
    lockTimeout
    priority
    storeDir
    accessLog
    accessLogFile
    ;
}
