# The text of an ssh_config for somebody who logs in to the builders, for
# instance root in a Docker image:
#
#   mkSshConfig { sshKeyPath = "/root/.ssh/nix-builder"; }
{
  builders ? import ./builders.nix,
  # The private key, where it will be. null: ssh's own.
  sshKeyPath ? null,
  # A file with the builders' host keys. null: ssh's own.
  knownHostsFile ? null,
}:
let
  optional = condition: line: if condition then "  ${line}\n" else "";

  block = given:
    let b = import ./builder.nix given; in
    "Host ${b.hostname}\n"
    + "  User ${b.sshUser}\n"
    + optional (sshKeyPath != null) "IdentityFile ${toString sshKeyPath}"
    + optional (sshKeyPath != null) "IdentitiesOnly yes"
    + optional (knownHostsFile != null)
      "UserKnownHostsFile ${toString knownHostsFile}"
    + import ./sshConnection.nix given;
in
builtins.concatStringsSep "\n" (map block builders)
