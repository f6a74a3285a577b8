# The upload endpoint, as nginx configuration: { listen, server }. It takes what
# `nix copy --to http://...` and the targets of nix-queued send by PUT, and
# gives it back.
#
# Whoever may upload may also replace what is there. Clients are safe from that
# by signatures, and by nothing else.
given:
let
  inherit (import ./blocks.nix) block cacheInfo listen location;
  s = import ./uploadSettings.nix given;
  when = condition: text: if condition then text else "";
  networks =
    if s.allowedNetworks == [ ] && s.basicAuthFile != null then
      [ "all" ]
    else
      s.allowedNetworks;
  takesUploads = ''
    dav_methods PUT;
    create_full_put_path on;
    dav_access user:rw group:r all:r;
  ''
  + block "limit_except GET" (
    builtins.concatStringsSep "" (map (n: "allow ${n};\n") networks)
    + "deny all;\n"
    + when (s.basicAuthFile != null) ''
      auth_basic "Nix cache";
      auth_basic_user_file ${toString s.basicAuthFile};
    ''
  );
in
{
  listen = listen s.listenAddresses s.port;

  # The temporary files are on the same file system as the uploads, so that
  # they appear whole. nginx' own limit for a body is 1 MB.
  server = ''
    root ${toString s.directory};
    client_max_body_size 0;
    client_body_temp_path ${toString s.directory}/.tmp;
    client_body_timeout 300s;
  ''
  + when (!s.allowOverwrite) ''
    set $nix_upload $request_method;
    if (-e $request_filename) { set $nix_upload "$nix_upload again"; }
    if ($uri = /nix-cache-info) { set $nix_upload ""; }
    if ($nix_upload = "PUT again") { return 409; }
  ''
  # Clients upload it to see whether they may. What they send is never served.
  + cacheInfo s takesUploads
  + location "^~ /.tmp" "deny all;"
  + location "/" ("default_type application/octet-stream;\n" + takesUploads);
}
