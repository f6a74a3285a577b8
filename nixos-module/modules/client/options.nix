# services.nix-builder.client: a machine that takes paths from the cache.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  cache = import ../../lib/cache.nix;
in
{
  options.services.nix-builder.client = {
    enable = lib.mkEnableOption "taking store paths from the cache";

    cacheUrl = mkOption {
      type = types.str;
      default = cache.url;
      example = "http://nix-cache";
      description = ''
        Where the cache is: the proxy, or a server of a store such as Harmonia.
      '';
    };

    publicKey = mkOption {
      type = types.str;
      default = cache.publicKey;
      description = ''
        The public key that the cache's own paths are signed with. Only paths
        with a signature of a key that this machine knows are accepted.
      '';
    };

    priority = mkOption {
      type = types.int;
      default = cache.priority;
      description = ''
        Caches with a lower number are asked first, whatever their order in
        `substituters`; cache.nixos.org has 40. The default is what the proxy
        itself advertises. Any other number becomes a parameter of the URL,
        which counts more than what the server says.
      '';
    };

    extraSubstituters = mkOption {
      type = types.listOf types.str;
      default = [ cache.upstream.url ];
      example = [ "https://nix-community.cachix.org" ];
      description = ''
        Further caches. https://cache.nixos.org is there in any case, since
        NixOS and nix-darwin add it; to be without it, set
        `nix.settings.substituters` with `lib.mkForce`.
      '';
    };

    extraPublicKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "The public keys of the further caches.";
    };

    failFast = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Whether caches that cannot be reached are given up quickly, so that
          they neither block nor fail a build.
        '';
      };
      connectTimeout = mkOption {
        type = types.ints.unsigned;
        default = 2;
        description = "Seconds until a cache that does not answer is given up.";
      };
      httpConnections = mkOption {
        type = types.ints.unsigned;
        default = 25;
        description = "How many connections there may be at once.";
      };
      fallback = mkOption {
        type = types.bool;
        default = true;
        description = "Whether to build what cannot be downloaded.";
      };
      negativeTtl = mkOption {
        type = types.ints.unsigned;
        default = 3600;
        description = ''
          Seconds for which Nix believes a cache that it does not have a path.
          A path that is uploaded after this machine has asked for it stays
          invisible to it for so long; with 0 it asks every time.
        '';
      };
    };
  };
}
