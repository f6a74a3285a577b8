# The caching proxy, as nginx configuration: { http, listen, names, server }.
# `http` goes to the http level and before any server; `server` is the inside
# of a server block.
#
# Tiers, in the order in which they are asked, and what X-Cache-Status says:
#   uploads     a directory                              UPLOADED
#   local       Harmonia or nix-serve on this machine    LOCAL
#   upstream    cache.nixos.org, behind nginx's cache    HIT, MISS, STALE, ...
# Only the last is cached. The local server is asked every time, so that "not
# found" of upstream never hides what has just been built or uploaded here.
given:
let
  inherit (import ./blocks.nix) cacheInfo listen location;
  s = import ./proxySettings.nix given;
  url = import ./url.nix;
  local = url "localUrl" s.localUrl;
  upstream = url "upstream" s.upstream;

  when = condition: text: if condition then text else "";
  words = builtins.concatStringsSep " ";

  # IPv6 addresses need brackets here.
  hex = "[0-9a-fA-F]*";
  nameServer = address:
    if builtins.match "${hex}:${hex}:[0-9a-fA-F:.]*" address == null then
      address
    else
      "[${address}]";

  journal = "syslog:server=unix:/dev/log,tag=nginx,nohostname";
  accessLog = {
    syslog = "access_log ${journal} nixcache;\n";
    file = "access_log ${toString s.accessLogFile} nixcache;\n";
    off = "access_log off;\n";
  }.${s.accessLog};

  # Upstream's name in a variable is looked up when it is needed.
  common = ''
    resolver ${words (map nameServer s.resolver)} valid=300s${
      when (!s.upstreamIpv6) " ipv6=off"
    };
    resolver_timeout 5s;
    set $nix_upstream ${upstream.base};
    recursive_error_pages on;
    set $nix_tier OWN;
    add_header X-Cache-Status $nix_cache_status always;
    if ($request_method !~ "^(GET|HEAD)$") { return 403; }
  '';

  # The answers of the local server pass through as they come; NARs are not
  # written to disk on the way. Accept-Encoding stays: Harmonia compresses.
  askLocal = ''
    set $nix_tier LOCAL;
    proxy_pass http://nix_local;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_connect_timeout 2s;
    proxy_read_timeout 300s;
    proxy_max_temp_file_size 0;
    proxy_intercept_errors on;
    error_page ${words (map toString s.fallthroughOn)} = @upstream;
  '';

  tls = when (upstream.scheme == "https") ''
    proxy_ssl_server_name on;
    proxy_ssl_name ${upstream.host};
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 3;
    proxy_ssl_trusted_certificate ${toString s.caFile};
  '';

  # Old answers are used when upstream fails, but not while one is refreshed
  # ("updating"): that would serve an old "not found" once more, however old
  # it is, and Nix would believe it for an hour. Temporary redirections are
  # not kept: where they lead to is often signed, and expires.
  askUpstream = ''
    set $nix_tier "";
    proxy_pass $nix_upstream$request_uri;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Accept-Encoding "";
    ${tls}
    proxy_connect_timeout 5s;
    proxy_read_timeout 60s;
    proxy_cache nix_upstream;
    proxy_cache_key $request_uri;
    proxy_cache_valid 200 301 ${s.validity};
    proxy_cache_valid 404 ${s.negativeTtl};
    proxy_cache_revalidate on;
    proxy_cache_lock on;
    proxy_cache_lock_timeout ${s.lockTimeout};
    proxy_cache_lock_age ${s.lockTimeout};
    proxy_cache_use_stale error timeout invalid_header
                          http_429 http_500 http_502 http_503 http_504;
    proxy_cache_background_update off;
    proxy_ignore_headers Cache-Control Expires X-Accel-Expires Set-Cookie Vary;
    proxy_hide_header Set-Cookie;
    proxy_force_ranges on;
  ''
  + when s.offlineMissAs404 ''
    proxy_intercept_errors on;
    error_page 502 504 = @miss;
  '';

  locations =
    if s.uploadDirectory == null then
      location "/" askLocal
    else
      location "/" ''
        set $nix_tier UPLOADED;
        root ${toString s.uploadDirectory};
        default_type application/octet-stream;
        try_files $uri @local;
      ''
      # Uploads that are not complete.
      + location "^~ /.tmp" "return 404;"
      + location "@local" askLocal;
in
{
  listen = listen s.listenAddresses s.listenPort;
  names = words s.serverNames;

  http =
    if local.scheme != "http" || local.path != "" then
      throw "localUrl: `${s.localUrl}' is not http://HOST[:PORT]"
    else
      ''
        proxy_cache_path ${toString s.cacheDir} levels=1:2
                         keys_zone=nix_upstream:64m max_size=${s.maxSize}
                         min_free=${s.minFree} inactive=${s.inactive}
                         use_temp_path=off;
        map $nix_tier $nix_cache_status {
          "" $upstream_cache_status;
          default $nix_tier;
        }
        log_format nixcache '$remote_addr "$request" $status $body_bytes_sent '
                            'X-Cache-Status=$nix_cache_status '
                            'upstream=$upstream_addr ust=$upstream_status '
                            'rt=$request_time';
        upstream nix_local {
          server ${local.address} max_fails=0;
          keepalive 16;
        }
      '';

  server =
    accessLog
    + common
    + cacheInfo s "return 405;"
    + locations
    + location "@upstream" askUpstream
    + when s.offlineMissAs404 (location "@miss" ''
      set $nix_tier OFFLINE-MISS;
      return 404;
    '');
}
