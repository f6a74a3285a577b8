# What the client's options come to; the same on NixOS and nix-darwin.
{ config, lib, ... }:
let
  name = "services.nix-builder.client";
  cfg = config.services.nix-builder.client;
  checks = import ../../lib/checks.nix;
  settings = import ../../lib/client.nix (removeAttrs cfg [ "enable" ]);
  inherit (import ../../lib/cache.nix) upstream;
  urls = "(https?|ssh|ssh-ng|s3|file)://.+";
in
{
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.match urls cfg.cacheUrl != null;
        message = ''
          ${name}.cacheUrl is `${cfg.cacheUrl}', which Nix
          cannot ask for anything. Write the scheme as well, for instance
          `http://${cfg.cacheUrl}'.
        '';
      }
    ]
    ++ checks.publicKeys "${name}.publicKey" [ cfg.publicKey ]
    ++ checks.publicKeys "${name}.extraPublicKeys" cfg.extraPublicKeys;

    nix.settings = {
      substituters = checks.withoutUpstream settings.substituters;
      trusted-public-keys = builtins.filter
        (key: key != upstream.publicKey) settings.trusted-public-keys;
    }
    // lib.mapAttrs (_: lib.mkDefault) (
      removeAttrs settings [ "substituters" "trusted-public-keys" ]
    );
  };
}
