# What a Docker image with Nix in it needs, to use the cache and the builders:
# text alone, so that nothing but a `nix` is needed to write it.
{ lib ? (import ../../nixos-module { }).lib }:
let
  builders = [
    {
      hostname = "nix-01";
      maxJobs = 4;
      speedFactor = 2;
      publicHostKey = "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFNIX01";
    }
    {
      hostname = "nix-02";
      publicHostKey = "ssh-ed25519 AAAAREPLACEWITHTHEHOSTKEYOFNIX02";
    }
  ];
  # Mounted when the image runs: a secret has no place in it.
  sshKeyPath = "/run/secrets/nix-builder";
in
{
  nixConf = lib.mkNixConf {
    cacheUrl = "http://nix-cache";
    publicKey = "nas-01-cache:REPLACE+BY+THE+PUBLIC+KEY+OF+NAS01+0000000A=";
    machinesFile = "/etc/nix/machines";
    settings = {
      experimental-features = [ "nix-command" "flakes" ];
      # There are neither users for builds nor a sandbox in the container.
      build-users-group = "";
      sandbox = false;
    };
  };
  machines = lib.mkMachinesFile { inherit builders sshKeyPath; };
  sshConfig = lib.mkSshConfig { inherit builders sshKeyPath; };
}
