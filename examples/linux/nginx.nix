# The caching proxy, as a file for /etc/nginx/conf.d:
#
#   nix --extra-experimental-features nix-command eval --raw -f nginx.nix proxy
#
# With uploadEndpoint beside proxy it takes uploads, too.
# ../../nixos-module/lib/nginx/proxySettings.nix says what else can be set.
{
  lib ? (import ../../nixos-module { }).lib,
  # Your network's name server: nginx does not read /etc/resolv.conf.
  resolver ? "127.0.0.53",
}:
{
  proxy = lib.mkNginx {
    proxy = {
      serverNames = [ "nix-cache" "cachy.local" ];
      resolver = [ resolver ];
      cacheDir = "/var/cache/nginx/nix-cache-proxy";
      maxSize = "100g";
      accessLog = "file";
      accessLogFile = "/var/log/nginx/nix-cache.log";
    };
  };
}
