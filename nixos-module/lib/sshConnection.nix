# How ssh shall treat the connection to a builder: lines of ssh_config(5).
# A builder that is down has to be given up soon, or builds wait for it.
builder:
let
  b = import ./builder.nix builder;
  lines = [
    "ConnectTimeout 10"
    "ServerAliveInterval 15"
    "ServerAliveCountMax 4"
  ]
  ++ (
    if b.port == 22 then
      [ ]
    else
      [
        "Port ${toString b.port}"
        # So that its key is looked up by its name, whatever the port.
        "HostKeyAlias ${b.hostname}"
      ]
  )
  ++ (if b.compression then [ "Compression yes" ] else [ ]);
in
builtins.concatStringsSep "" (map (line: "  ${line}\n") lines)
