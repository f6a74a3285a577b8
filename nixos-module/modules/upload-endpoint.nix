# services.nix-builder.uploadEndpoint: nginx as a binary cache that takes PUT.
# The text is that of lib.mkNginx.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  name = "services.nix-builder.uploadEndpoint";
  cfg = config.services.nix-builder.uploadEndpoint;
  nginx = config.services.nginx;
  checks = import ../lib/checks.nix;
  default = import ../lib/nginx/uploadSettings.nix { };
  text = import ../lib/nginx/upload.nix (removeAttrs cfg [
    "enable"
    "openFirewall"
  ]);
  directory = toString cfg.directory;
in
{
  _class = "nixos";
  imports = [ ./proxy.nix ];

  options.services.nix-builder.uploadEndpoint = {
    enable = lib.mkEnableOption "a binary cache that takes uploads over HTTP";

    port = mkOption {
      type = types.port;
      default = default.port;
      description = "The port to listen on.";
    };

    listenAddresses = mkOption {
      type = types.listOf types.str;
      default = default.listenAddresses;
      description = "The addresses to listen on; those of IPv6 in brackets.";
    };

    directory = mkOption {
      type = types.path;
      default = default.directory;
      example = "/ssdpool/local/nix-cache/upload";
      description = ''
        Where uploads are kept. Nothing is ever removed from it: keep an eye on
        its size.
      '';
    };

    allowedNetworks = mkOption {
      type = types.listOf types.str;
      default = default.allowedNetworks;
      example = [ "100.64.0.0/10" ];
      description = ''
        Addresses and networks that may upload; everybody may download. Empty,
        together with basicAuthFile: from everywhere, with a password.
      '';
    };

    basicAuthFile = mkOption {
      type = types.nullOr types.path;
      default = default.basicAuthFile;
      example = "/run/agenix/nix-cache-htpasswd";
      description = ''
        A file of users and hashed passwords, as `htpasswd` writes it, that
        nginx can read. Uploads then need one of them, from an allowed network;
        Nix takes it from `netrc-file`.
      '';
    };

    allowOverwrite = mkOption {
      type = types.bool;
      default = default.allowOverwrite;
      description = ''
        Whether a file that is there may be uploaded once more. Nix does that
        to add a signature. Without it the answer is 409.
      '';
    };

    priority = mkOption {
      type = types.ints.unsigned;
      default = default.priority;
      description = "What nix-cache-info says.";
    };

    storeDir = mkOption {
      type = types.path;
      default = default.storeDir;
      description = "The store that this is a cache of.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether others may reach the port.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.allowedNetworks != [ ] || cfg.basicAuthFile != null;
        message = ''
          ${name}: allowedNetworks is empty and there is no basicAuthFile, so
          nobody could upload. Name the networks that may, for instance [
          "192.168.1.0/24" ], or set basicAuthFile.
        '';
      }
      (checks.outsideStore "${name}.basicAuthFile" cfg.basicAuthFile)
      {
        assertion = !lib.hasPrefix "${builtins.storeDir}/" directory;
        message = ''
          ${name}.directory is ${directory}, in the Nix store, where nginx
          cannot write. Name a directory like ${default.directory}.
        '';
      }
    ];

    services.nginx = {
      enable = true;
      virtualHosts.nix-cache-upload = {
        listen = map (addr: { inherit addr; inherit (cfg) port; })
          cfg.listenAddresses;
        extraConfig = text.server;
      };
    };
    services.nix-builder.proxy.uploadDirectory = lib.mkDefault cfg.directory;

    systemd.services.nginx = {
      serviceConfig.ReadWritePaths = [ directory ];
      unitConfig.RequiresMountsFor = [ directory ];
    };
    systemd.tmpfiles.rules = [
      "d ${directory} 0755 ${nginx.user} ${nginx.group} -"
    ];

    networking.firewall.allowedTCPPorts =
      lib.optional cfg.openFirewall cfg.port;
  };
}
