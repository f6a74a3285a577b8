# The real nix-darwin around our modules; needs the real nixpkgs lib as well.
{
  lib,
  pkgs,
  nixDarwin,
  modules,
}:
let
  # What every Mac of nix-darwin has installed.
  more = lib.genAttrs [
    "bashInteractive"
    "nix-info"
    "texinfoInteractive"
  ] (_: pkgs.coreutils);
in
import (nixDarwin + "/eval-config.nix") {
  inherit lib;
  modules = modules ++ [
    {
      system.stateVersion = 6;
      nixpkgs.hostPlatform = pkgs.system;
      # Made of more packages than are pretended here.
      system.tools.enable = false;
      documentation.enable = false;
      programs.zsh.enable = false;
      programs.nix-index.enable = false;
    }
  ];
  specialArgs.pkgs = more // pkgs;
  enableNixpkgsReleaseCheck = false;
}
