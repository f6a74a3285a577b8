# One configuration, evaluated and rendered: what NixOS or nix-darwin would make
# of it, as far as our modules have a say.
#
# `module` is the configuration under test. Every module of nixos-module/ is
# imported beside it, as a user of `nixosModules.default` has them; `base` says
# with what instead.
{
  module,
  class ? "nixos",
  lib ? import ./pocket,
  nixDarwin ? null,
  # Which shape services.harmonia has: see stubs/harmonia.nix.
  flatHarmonia ? false,
  system ? if class == "darwin" then "aarch64-darwin" else "x86_64-linux",
  base ? [ (import ../../nixos-module { })."${class}Modules".default ],
}:
let
  pkgs = import ./pkgs.nix { inherit lib system; };
  evaluated =
    if class == "darwin" && nixDarwin != null then
      import ./real-darwin.nix {
        inherit lib pkgs nixDarwin;
        modules = base ++ [ module ];
      }
    else
      lib.evalModules {
        inherit class;
        modules = stubs ++ base ++ [ module ];
        specialArgs = { inherit pkgs; };
      };
  stubs =
    if class == "darwin" then
      [ ./stubs/darwin.nix ]
    else
      [
        ./stubs/nixos.nix
        (import ./stubs/harmonia.nix { flat = flatHarmonia; })
      ];
  render = import ./render.nix { inherit lib pkgs; };
  config = evaluated.config;
  # nix-darwin has no values where it does not manage Nix.
  nix =
    if config.nix.enable then
      config.nix
    else
      { settings = { }; buildMachines = [ ]; };
  both = {
    inherit (config) warnings;
    failures = map (a: a.message)
      (builtins.filter (a: !a.assertion) config.assertions);
    etc = render.etc config.environment.etc;
    # Their texts are looked at, too.
    packages = map (p: builtins.seq p.outPath p.pname)
      config.environment.systemPackages;
    nixSettings = nix.settings;
    nixConf = render.nixConf nix.settings;
    inherit (nix) buildMachines;
    knownHosts = config.programs.ssh.knownHosts;
    users = config.users.users;
    groups = config.users.groups;
  };
  ofNixos = {
    units = render.units config.systemd;
    tmpfiles = config.systemd.tmpfiles.rules;
    sshConfig = config.programs.ssh.extraConfig;
    gc = config.nix.gc;
    firewall = config.networking.firewall;
    nginx = config.services.nginx;
    openssh = config.services.openssh;
    inherit (config.services) harmonia nfs;
    nixServe = config.services.nix-serve;
    fileSystems = config.fileSystems;
    emulatedSystems = config.boot.binfmt.emulatedSystems;
  };
  ofDarwin = {
    plists = render.plists config;
    # What is done after users are made and before daemons are loaded.
    activation =
      (config.system.activationScripts.launchd or { text = ""; }).text;
    inherit (config.users) knownUsers knownGroups;
  };
in
{
  inherit config;
  inherit (evaluated) options;
  # Plain data, to be printed as JSON.
  rendered = both // (if class == "darwin" then ofDarwin else ofNixos);
}
