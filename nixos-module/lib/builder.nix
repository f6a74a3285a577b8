# One build machine, complete: whatever is left out gets its default, and an
# attribute that does not exist is an error.
{
  # Name or address, as ssh takes it.
  hostname,
  sshUser ? "nix-builder",
  port ? 22,
  # "ssh", or "ssh-ng" between machines that both have a recent Nix.
  protocol ? "ssh",
  systems ? [ "x86_64-linux" ],
  # Builds at once: about one for each core.
  maxJobs ? 4,
  # 1 is normal, 2 fast, 3 very fast: faster machines are asked first.
  speedFactor ? 1,
  supportedFeatures ? [
    "nixos-test"
    "benchmark"
    "big-parallel"
    "kvm"
  ],
  # Only derivations that require all of these are built there.
  mandatoryFeatures ? [ ],
  # "ssh-ed25519 AAAA...": the machine's host key, as ssh-keyscan prints it
  # after the name. null: ssh has to know the machine already.
  publicHostKey ? null,
  # For slow links.
  compression ? false,
}:
{
  inherit
    hostname
    sshUser
    port
    protocol
    systems
    maxJobs
    speedFactor
    supportedFeatures
    mandatoryFeatures
    publicHostKey
    compression
    ;
}
