# The text of an nginx configuration for a cache host, to be included at the
# http level (/etc/nginx/conf.d/nix-cache.conf on most systems):
#
#   mkNginx {
#     proxy = { serverNames = [ "cache.lan" ]; resolver = [ "192.168.1.1" ]; };
#     uploadEndpoint.allowedNetworks = [ "100.64.0.0/10" ];
#   }
#
# nginx/proxySettings.nix and nginx/uploadSettings.nix say what may be given.
# What the upload endpoint takes, the proxy serves.
{
  # null: no proxy.
  proxy ? { },
  # null: no uploads.
  uploadEndpoint ? null,
}:
let
  inherit (import ./nginx/blocks.nix) block;

  uploadDirectory =
    if uploadEndpoint == null then null
    else (import ./nginx/uploadSettings.nix uploadEndpoint).directory;

  proxyText =
    let p = import ./nginx/proxy.nix ({ inherit uploadDirectory; } // proxy); in
    p.http + block "server" "${p.listen}server_name ${p.names};\n${p.server}";

  uploadText =
    let u = import ./nginx/upload.nix uploadEndpoint; in
    block "server" (u.listen + u.server);
in
(if proxy == null then "" else proxyText)
+ (if uploadEndpoint == null then "" else uploadText)
