# services.nix-builder.client on nix-darwin.
{ config, lib, ... }:
let
  cfg = config.services.nix-builder.client;
in
{
  _class = "darwin";
  imports = [ ./settings.nix ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.nix.enable;
        message = ''
          services.nix-builder.client is enabled, but nix.enable is false:
          nix-darwin leaves nix.conf to another installer, so that nothing of
          this would be in it. Set nix.enable = true, or put what lib.mkNixConf
          returns into that installer's own file (Determinate Nix:
          /etc/nix/nix.custom.conf).
        '';
      }
    ];
  };
}
