# The text of /etc/nix/machines: a line for each builder.
#
#   mkMachinesFile {
#     builders = [ { hostname = "nix-01"; maxJobs = 8; } ];
#     sshKeyPath = "/root/.ssh/nix-builder";
#   }
{
  builders ? import ./builders.nix,
  # The private key, where it will be. null: ssh's own.
  sshKeyPath ? null,
}:
let
  base64 = import ./base64.nix;

  # Fields are separated by blanks; "-" is an empty one.
  field = value:
    let text = toString value; in
    if value == null || text == "" then "-"
    else if builtins.match "[^ \t\n]+" text == null then
      throw "mkMachinesFile: `${text}' has a blank in it; a field has none"
    else text;

  list = values:
    builtins.concatStringsSep "," (map field values);

  line = given:
    let b = import ./builder.nix given; in
    builtins.concatStringsSep " " [
      (field "${b.protocol}://${b.sshUser}@${b.hostname}")
      (field (list b.systems))
      (field sshKeyPath)
      (field b.maxJobs)
      (field b.speedFactor)
      (field (list (b.supportedFeatures ++ b.mandatoryFeatures)))
      (field (list b.mandatoryFeatures))
      (if b.publicHostKey == null then "-" else base64 b.publicHostKey)
    ] + "\n";
in
builtins.concatStringsSep "" (map line builders)
