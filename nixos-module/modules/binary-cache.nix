# services.nix-builder.binary-cache: a list of caches to take paths from, one of
# them near, none of which can block or fail a build.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.binary-cache";
  cfg = config.services.nix-builder.binary-cache;
  checks = import ../lib/checks.nix;
  inherit (import ../lib/cache.nix) upstream;

  separator = if lib.hasInfix "?" cfg.local.url then "&" else "?";
  local = lib.optional cfg.local.enable
    "${cfg.local.url}${separator}priority=${toString cfg.local.priority}";
  remote = lib.optionals cfg.remote.enable cfg.remote.substituters;
  remoteKeys = lib.optionals cfg.remote.enable cfg.remote.trustedPublicKeys;
  localKey = lib.optional (cfg.local.publicKey != null) cfg.local.publicKey;
  keys = lib.optionals cfg.local.enable localKey ++ remoteKeys;

  # Whoever has added them.
  trusted = config.nix.settings.trusted-public-keys;
  keyless = checks.withoutKey remote trusted;
in
{
  _class = "nixos";
  imports = [ ./utilities.nix ];

  options.services.nix-builder.binary-cache = {
    enable = lib.mkEnableOption "a local and several public binary caches";

    local = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether there is a cache in the local network.";
      };
      url = mkOption {
        type = types.str;
        default = "http://192.168.15.6:5000";
        description = "Where it is.";
      };
      publicKey = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "cachy.local:BASE64";
        description = "The public key that it signs with.";
      };
      priority = mkOption {
        type = types.int;
        default = 40;
        description = ''
          Caches with a lower number are asked first. 40 is that of
          cache.nixos.org as well: then the order of the list decides.
        '';
      };
      requireConnectivity = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether a build fails that would have to do without a cache. If not,
          caches that cannot be reached are passed over, and what cannot be
          downloaded is built.
        '';
      };
    };

    remote = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether to use the public caches.";
      };
      substituters = mkOption {
        type = types.listOf types.str;
        default = [
          "https://cuda-maintainers.cachix.org"
          "https://nix-community.cachix.org"
        ];
        description = ''
          Their URLs. https://cache.nixos.org is there in any case, since NixOS
          adds it.
        '';
      };
      trustedPublicKeys = mkOption {
        type = types.listOf types.str;
        default = [
          upstream.publicKey
          "cuda-maintainers.cachix.org-1:0dq3bujKpuEPMCX6U4WylrUDZ9JyUG0VpVZa7CNfq5E="
          "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
        ];
        description = ''
          Their public keys: without its key, nothing is taken from a cache.
        '';
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions =
      checks.publicKeys "${name}.remote.trustedPublicKeys" remoteKeys
      ++ checks.publicKeys "${name}.local.publicKey" localKey;

    warnings =
      lib.optional (cfg.local.enable && checks.ownKeys trusted == [ ])
        ''
          ${name}: there is no key of ${cfg.local.url}: Nix asks it for
          everything and refuses all that was built there ("lacks a valid
          signature"). Set local.publicKey to the text of its .pub file, or
          local.enable = false.
        ''
      ++ lib.optional (keyless != [ ])
        ''
          ${name}: there is no key of ${lib.concatStringsSep ", " keyless}: Nix
          would refuse what is there. Add it to remote.trustedPublicKeys;
          cachix.org shows it on the cache's page.
        '';

    nix.settings = {
      substituters = checks.withoutUpstream (local ++ remote);
      trusted-public-keys =
        builtins.filter (key: key != upstream.publicKey) keys;

      connect-timeout = lib.mkDefault 2;
      http-connections = lib.mkDefault 25;
      fallback = lib.mkDefault (!cfg.local.requireConnectivity);
      narinfo-cache-negative-ttl = lib.mkDefault 3600;
    };

    # For cache-status.
    services.nix-builder.utilities.enable = lib.mkDefault true;
  };
}
