# The settings that the options come to.
{ lib, cfg }:
let
  inherit (builtins) attrValues replaceStrings;
  upper = lib.stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

  # sshKeyFile -> ssh-key-file
  kebab = replaceStrings upper (map (c: "-${lib.toLower c}") upper);

  table = target: lib.mapAttrs' (name: lib.nameValuePair (kebab name))
    (lib.filterAttrs (_: v: v != null) target);
in
{
  state-dir = lib.mkDefault cfg.stateDir;
  reader-group = lib.mkIf (cfg.queue.adminGroup != null)
    (lib.mkDefault cfg.queue.adminGroup);
  target = lib.mkIf (cfg.targets != { }) (map table (attrValues cfg.targets));
  signing.key-files = lib.mkIf (cfg.signing.keyFiles != [ ])
    cfg.signing.keyFiles;
  roots = {
    enable = lib.mkDefault cfg.roots.enable;
    directory = lib.mkDefault cfg.roots.directory;
    systems = lib.mkIf (cfg.roots.systems != null) cfg.roots.systems;
    max-age = lib.mkDefault cfg.roots.maxAge;
  };
  # The job prunes here; only the daemon can do it on other machines.
  prune.enable = lib.mkDefault (
    cfg.prune.enable
    && lib.any (target: target.pinRemote == true) (attrValues cfg.targets));
}
