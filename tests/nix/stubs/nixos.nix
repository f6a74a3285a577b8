# The slice of NixOS' options that our modules touch.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  boolean = default: mkOption { type = types.bool; inherit default; };
  optional = type: mkOption { type = types.nullOr type; default = null; };
  string = default: mkOption { type = types.str; inherit default; };
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  ports = mkOption { type = types.listOf types.port; default = [ ]; };
  attrsOf = type: mkOption { type = types.attrsOf type; default = { }; };
  closed = options: types.submodule { inherit options; };

  file = types.submodule ({ name, ... }: {
    options = {
      enable = boolean true;
      target = string name;
      text = optional types.lines;
      source = optional (types.either types.path types.package);
      mode = string "symlink";
      user = string "+0";
      group = string "+0";
    };
  });

  user = types.submodule ({ name, ... }: {
    options = {
      name = string name;
      description = string "";
      isSystemUser = boolean false;
      isNormalUser = boolean false;
      uid = optional types.int;
      group = string "";
      extraGroups = strings;
      home = string "/var/empty";
      createHome = boolean false;
      useDefaultShell = boolean false;
      shell = optional (types.either types.path types.package);
      openssh.authorizedKeys = {
        keys = strings;
        keyFiles = mkOption { type = types.listOf types.path; default = [ ]; };
      };
    };
  });

  group = closed { gid = optional types.int; members = strings; };

  firewall = {
    allowedTCPPorts = ports;
    allowedUDPPorts = ports;
  };

  tmpfile = closed {
    mode = string "-";
    user = string "-";
    group = string "-";
    age = string "-";
    argument = string "";
  };

  mount = types.submodule {
    options = {
      device = optional types.str;
      fsType = string "auto";
      options = strings;
      neededForBoot = boolean false;
    };
  };

  openssh = {
    enable = boolean false;
    openFirewall = boolean true;
    extraConfig = mkOption { type = types.lines; default = ""; };
    settings = attrsOf types.anything;
  };
in
{
  imports = [
    ./common.nix
    ./systemd.nix
    ./nginx.nix
  ];

  options = {
    environment.etc = attrsOf file;
    users.users = attrsOf user;
    users.groups = attrsOf group;

    nix.gc = {
      automatic = boolean false;
      dates = mkOption {
        type = types.either types.singleLineStr (types.listOf types.str);
        default = "03:15";
      };
      options = mkOption { type = types.singleLineStr; default = ""; };
      persistent = boolean true;
      randomizedDelaySec = mkOption {
        type = types.singleLineStr;
        default = "0";
      };
    };
    nix.sshServe = {
      enable = boolean false;
      write = boolean false;
      trusted = boolean false;
      keys = strings;
      protocol = mkOption {
        type = types.enum [ "ssh" "ssh-ng" ];
        default = "ssh";
      };
    };

    systemd.tmpfiles = {
      rules = strings;
      settings = attrsOf (types.attrsOf (types.attrsOf tmpfile));
    };

    networking.firewall = firewall // {
      enable = boolean true;
      interfaces = attrsOf (closed firewall);
      extraCommands = mkOption { type = types.lines; default = ""; };
    };
    networking.hosts = attrsOf (types.listOf types.str);

    boot.binfmt.emulatedSystems = strings;
    fileSystems = attrsOf mount;

    services = {
      inherit openssh;
      tailscale.enable = boolean false;
      nix-serve = {
        enable = boolean false;
        port = mkOption { type = types.port; default = 5000; };
        bindAddress = string "0.0.0.0";
        openFirewall = boolean false;
        secretKeyFile = optional types.str;
        extraParams = mkOption {
          type = types.separatedString " ";
          default = "";
        };
      };
      nfs.server = {
        enable = boolean false;
        exports = mkOption { type = types.lines; default = ""; };
      };
    };
  };

  config.users.groups.wheel = { };
}
