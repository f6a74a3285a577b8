# Options that NixOS and nix-darwin have in common, closed like the real ones:
# a misspelt option or a value of the wrong type fails here as it fails there.
{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  boolean = default: mkOption { type = types.bool; inherit default; };
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  optional = type: mkOption { type = types.nullOr type; default = null; };
  lines = mkOption { type = types.lines; default = ""; };

  assertion = types.submodule {
    options.assertion = mkOption { type = types.bool; };
    options.message = mkOption { type = types.str; };
  };

  atom = with types; nullOr (oneOf [ bool int float str path package ]);

  settings = types.submodule {
    freeformType = types.attrsOf (types.either atom (types.listOf atom));
    options = {
      substituters = strings;
      trusted-public-keys = strings;
      trusted-substituters = strings;
      trusted-users = strings;
      max-jobs = mkOption {
        type = types.either types.int (types.enum [ "auto" ]);
        default = "auto";
      };
      cores = mkOption { type = types.int; default = 0; };
    };
  };

  machine = types.submodule {
    options = {
      hostName = mkOption { type = types.str; };
      protocol = mkOption {
        type = types.enum [ null "ssh" "ssh-ng" ];
        default = "ssh";
      };
      system = optional types.str;
      systems = strings;
      sshUser = optional types.str;
      sshKey = optional types.str;
      maxJobs = mkOption { type = types.int; default = 1; };
      speedFactor = mkOption { type = types.int; default = 1; };
      supportedFeatures = strings;
      mandatoryFeatures = strings;
      publicHostKey = optional types.str;
    };
  };

  knownHost = types.submodule ({ name, ... }: {
    options = {
      certAuthority = boolean false;
      hostNames = mkOption {
        type = types.listOf types.str;
        default = [ name ];
      };
      extraHostNames = strings;
      publicKey = optional types.str;
      publicKeyFile = optional types.path;
    };
  });
in
{
  options = {
    assertions = mkOption { type = types.listOf assertion; default = [ ]; };
    warnings = strings;
    meta = mkOption { type = types.attrsOf types.unspecified; default = { }; };

    environment.systemPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
    };

    nix = {
      enable = boolean true;
      package = mkOption { type = types.package; default = pkgs.nix; };
      settings = mkOption { type = settings; default = { }; };
      extraOptions = lines;
      distributedBuilds = boolean false;
      buildMachines = mkOption { type = types.listOf machine; default = [ ]; };
      optimise.automatic = boolean false;
    };

    networking.hostName = mkOption { type = types.str; default = "host"; };

    programs.ssh = {
      extraConfig = lines;
      knownHosts = mkOption { type = types.attrsOf knownHost; default = { }; };
    };

    nixpkgs.overlays = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
    };
  };

  config.nix.settings = {
    trusted-public-keys = [
      "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
    ];
    trusted-users = [ "root" ];
    substituters = lib.mkAfter [ "https://cache.nixos.org/" ];
  };
}
