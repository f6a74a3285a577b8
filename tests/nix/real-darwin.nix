# The real nix-darwin around our modules; needs the real nixpkgs lib as well.
{
  lib,
  pkgs,
  nixDarwin,
  modules,
}:
import (nixDarwin + "/eval-config.nix") {
  inherit lib;
  modules = modules ++ [ { system.stateVersion = 6; } ];
  specialArgs = { inherit pkgs; };
  enableNixpkgsReleaseCheck = false;
}
