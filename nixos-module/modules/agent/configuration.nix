# From settings to the file that queued reads, and to the secrets it needs.
#
# Secret files are named in the settings. With `credentials`, the service
# manager reads them, and the file says $CREDENTIALS_DIRECTORY/<id> instead.
{ lib, pkgs, cfg, credentials }:
let
  inherit (builtins) concatLists isPath isString;
  settings = cfg.settings;
  inDirectory = "$CREDENTIALS_DIRECTORY/";

  secretKeys = [
    "netrc-file"
    "bearer-token-file"
    "client-certificate-file"
    "client-key-file"
    "ssh-key-file"
  ];

  # --- Each secret: where it is, what it is called, what it is for.
  targets = settings.target or [ ];
  targetName = index: target: target.name or "target-${toString index}";
  ofTarget = index: target: map
    (key: {
      path = target.${key};
      id = "${targetName index target}.${key}";
      what = "${key} of the target ${targetName index target}";
    })
    (builtins.filter (key: target ? ${key}) secretKeys);
  ofSigning = lib.imap0
    (index: path: {
      inherit path;
      id = "signing-key-${toString index}";
      what = "a key in signing.keyFiles";
    })
    (settings.signing.key-files or [ ]);
  all = ofSigning ++ concatLists (lib.imap0 ofTarget targets);

  # What says itself where the service finds it stays as it is.
  secrets = builtins.filter
    (s: !(isString s.path && lib.hasPrefix inDirectory s.path)) all;

  inStore = s:
    isPath s.path || lib.hasPrefix "${builtins.storeDir}/" "${s.path}";

  # --- The settings with the names that the daemon is to use.
  handed = id: path:
    if credentials && !lib.hasPrefix inDirectory "${path}" then
      inDirectory + id
    else
      path;
  handedTarget = index: target: target // builtins.listToAttrs (map
    (s: lib.nameValuePair
      (lib.last (lib.splitString "." s.id))
      (handed s.id s.path))
    (ofTarget index target));
  final = settings
    // lib.optionalAttrs (settings ? target) {
      target = lib.imap0 handedTarget targets;
    }
    // lib.optionalAttrs (ofSigning != [ ]) {
      signing = settings.signing // {
        key-files = map (s: handed s.id s.path) ofSigning;
      };
    };

  # The hook goes by its environment, and knows only the option.
  same = key: value: option: wanted: {
    assertion = value == wanted;
    message = ''
      services.nix-queued.settings.${key} is ${toString value}: the hook would
      not know. Set services.nix-queued.${option} instead.
    '';
  };

  text = "# Written from services.nix-queued.\n" + import ./toml.nix lib final;
in
{
  inherit text;

  file = pkgs.writeTextFile {
    name = "queued.toml";
    inherit text;
    checkPhase = lib.optionalString cfg.checkConfig ''
      ${cfg.package}/bin/queued --check-config --config "$target"
    '';
  };

  # For LoadCredential=, in which % begins a specifier.
  loadCredential = lib.optionals credentials (map
    (s: "${s.id}:${lib.replaceStrings [ "%" ] [ "%%" ] s.path}") secrets);

  # Directories that are targets.
  directories = concatLists (map
    (target:
      let url = target.url or ""; in
      lib.optional (lib.hasPrefix "file:///" url)
        (lib.removeSuffix "/" (lib.removePrefix "file://" url)))
    targets);

  assertions = [
    (same "state-dir" settings.state-dir "stateDir" cfg.stateDir)
    (same "roots.directory" settings.roots.directory "roots.directory"
      cfg.roots.directory)
    {
      assertion = settings ? target;
      message = ''
        services.nix-queued.targets is empty: name the caches that paths go to,
        or, on a machine that only keeps roots, set
        services.nix-queued.settings.target = [ ].
      '';
    }
  ]
  ++ map
    (s: {
      assertion = !inStore s;
      message = ''
        services.nix-queued: ${s.what} is in the Nix store, where everyone can
        read it: ${toString s.path}. Name a file outside of it, as a string.
      '';
    })
    secrets;
}
