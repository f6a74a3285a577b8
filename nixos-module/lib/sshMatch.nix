# Lines of ssh_config(5) for the system's own file: how Nix reaches builders.
# They hold for Nix' logins only; whoever goes there by hand keeps his own
# settings, and what is written after them is for everybody again.
builders:
let
  block = given:
    let b = import ./builder.nix given; in
    "Match host ${b.hostname} user ${b.sshUser}\n"
    + import ./sshConnection.nix given;
in
if builders == [ ] then ""
else builtins.concatStringsSep "" (map block builders) + "Match all\n"
