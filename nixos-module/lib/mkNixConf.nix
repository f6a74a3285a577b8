# The text of a nix.conf for a client of the cache, for instance in a Docker
# image:
#
#   mkNixConf {
#     cacheUrl = "http://nix-cache";
#     machinesFile = "/etc/nix/machines";
#     settings.experimental-features = [ "nix-command" "flakes" ];
#   }
#
# Takes what services.nix-builder.client takes; `settings` are further lines,
# and win over ours.
arguments@{
  # The file that mkMachinesFile has made, where it will be. null: no machines.
  machinesFile ? null,
  settings ? { },
  ...
}:
let
  client = import ./client.nix
    (removeAttrs arguments [ "machinesFile" "settings" ]);

  machines =
    if machinesFile == null then
      { }
    else
      {
        builders = "@${machinesFile}";
        builders-use-substitutes = true;
      };

  word = value:
    if builtins.isBool value then (if value then "true" else "false")
    else toString value;

  line = name: value:
    let
      text =
        if builtins.isList value then
          builtins.concatStringsSep " " (map word value)
        else
          word value;
    in
    if value == null then ""
    else if builtins.match "[^\n]*" text == null then
      throw "mkNixConf: ${name} has a line break in it; nix.conf has none"
    else "${name} = ${text}\n";

  all = client // machines // settings;
in
builtins.concatStringsSep ""
  (map (name: line name all.${name}) (builtins.attrNames all))
