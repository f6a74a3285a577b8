# An entry of nix.buildMachines, made of a builder as builder.nix has it.
sshKeyPath: builder:
let b = import ./builder.nix builder; in
{
  hostName = b.hostname;
  sshKey = toString sshKeyPath;
  inherit (b)
    protocol
    systems
    sshUser
    maxJobs
    speedFactor
    supportedFeatures
    mandatoryFeatures
    ;
}
