# services.nginx, as far as a cache host uses it.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  boolean = mkOption { type = types.bool; default = false; };
  lines = mkOption { type = types.lines; default = ""; };
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  optional = type: mkOption { type = types.nullOr type; default = null; };

  location = types.submodule {
    options = {
      priority = mkOption { type = types.int; default = 1000; };
      proxyPass = optional types.str;
      root = optional types.path;
      alias = optional types.path;
      tryFiles = optional types.str;
      return = optional (with types; oneOf [ str int ]);
      basicAuthFile = optional types.path;
      recommendedProxySettings = boolean;
      extraConfig = lines;
    };
  };

  listen = types.submodule {
    options = {
      addr = mkOption { type = types.str; };
      port = optional types.port;
      ssl = boolean;
      extraParameters = strings;
    };
  };

  host = types.submodule ({ name, ... }: {
    options = {
      serverName = mkOption { type = types.nullOr types.str; default = name; };
      serverAliases = strings;
      listen = mkOption { type = types.listOf listen; default = [ ]; };
      default = boolean;
      root = optional types.path;
      basicAuthFile = optional types.path;
      enableACME = boolean;
      forceSSL = boolean;
      extraConfig = lines;
      locations = mkOption { type = types.attrsOf location; default = { }; };
    };
  });
in
{
  options.services.nginx = {
    enable = boolean;
    user = mkOption { type = types.str; default = "nginx"; };
    group = mkOption { type = types.str; default = "nginx"; };
    commonHttpConfig = lines;
    appendHttpConfig = lines;
    recommendedProxySettings = boolean;
    resolver.addresses = strings;
    virtualHosts = mkOption { type = types.attrsOf host; default = { }; };
  };
}
