# services.nix-builder.utilities: the commands of ../scripts on the PATH, for
# NixOS and nix-darwin. They work without this, too; here they also know what
# the other modules are configured with.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.nix-builder.utilities;
  inherit (config) services;

  names = [
    "cache-status"
    "cache-management"
    "offload-status"
    "offload-test-build"
    "offload-mount"
    "offload-unmount"
    "offload-setup"
    "offload-server-status"
    "offload-server-test"
    "offload-generate-cache-keys"
  ];
  scripts = ../scripts;

  # Nix itself, mount and umount are those of the machine.
  programs = [
    pkgs.bash
    pkgs.coreutils
    pkgs.curl
    pkgs.findutils
    pkgs.gawk
    pkgs.gnugrep
    pkgs.gnused
    pkgs.openssh
  ]
  ++ lib.optionals pkgs.stdenv.hostPlatform.isLinux [
    pkgs.iproute2
    pkgs.nfs-utils
  ];

  # What is set in a shell comes before what is set here.
  export = variable: value:
    "export ${variable}=\"\${${variable}:-${value}}\"\n";

  command = name: pkgs.writeShellApplication {
    inherit name;
    runtimeInputs = programs;
    text = lib.concatStrings (lib.mapAttrsToList export cfg.environment)
      + "exec bash ${scripts}/${name} \"$@\"\n";
  };

  server = services.offload-server or { enable = false; };
  harmonia = services.nix-builder.harmonia or { enable = false; };
  builder = services.nix-builder.builder or { enable = false; };
  agent = services.nix-queued or { enable = false; };
in
{
  options.services.nix-builder.utilities = {
    enable = lib.mkEnableOption ''
      the commands cache-status, cache-management and offload-*, which look at
      caches and builders and say what is wrong'';

    environment = mkOption {
      type = types.attrsOf (types.strMatching "[A-Za-z0-9_./:@+-]*");
      default = { };
      example = { OFFLOAD_HOST = "desktop"; };
      description = ''
        Defaults for these commands, as their --help has them. What other
        modules are configured with is there already.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = map command names;

    services.nix-builder.utilities.environment = lib.mkMerge [
      (lib.mkIf harmonia.enable {
        OFFLOAD_CACHE_PORT = lib.mkOverride 1100 (toString harmonia.port);
        OFFLOAD_CACHE_KEY = lib.mkIf (harmonia.signKeyPath != null)
          (lib.mkOverride 1100 (toString harmonia.signKeyPath));
      })
      (lib.mkIf server.enable {
        OFFLOAD_CACHE_PORT = lib.mkDefault (toString server.cachePort);
        OFFLOAD_CACHE_KEY = lib.mkDefault (toString server.cacheKeyPath);
      })
      (lib.mkIf builder.enable { OFFLOAD_USER = lib.mkDefault builder.user; })
      (lib.mkIf agent.enable {
        NIX_QUEUED_ROOTS_DIR = lib.mkDefault (toString agent.roots.directory);
      })
    ];
  };
}
