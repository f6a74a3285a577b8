# Data and text, made with builtins only: for Docker images, for any machine
# that has Nix and is not NixOS, and for the modules themselves.
{
  cache = import ./cache.nix;
  builders = import ./builders.nix;
  mkNixConf = import ./mkNixConf.nix;
  mkMachinesFile = import ./mkMachinesFile.nix;
  mkSshConfig = import ./mkSshConfig.nix;
  mkNginx = import ./mkNginx.nix;
}
