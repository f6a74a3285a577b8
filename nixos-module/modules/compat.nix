# Options under other names that people have in their configurations:
# services.clubcotton.harmonia and kernelcore.system.binary-cache.
{ lib, ... }:
let
  aliases = from: to: map
    (path: lib.mkAliasOptionModule (from ++ path) (to ++ path));

  harmonia = aliases
    [ "services" "clubcotton" "harmonia" ]
    [ "services" "nix-builder" "harmonia" ]
    [
      [ "enable" ]
      [ "port" ]
      [ "signKeyPath" ]
      [ "workers" ]
      [ "maxConnections" ]
      [ "tailnetHostname" ]
    ];

  theirs = [ "kernelcore" "system" "binary-cache" ];
  ours = [ "services" "nix-builder" "binary-cache" ];
  binaryCache = aliases theirs ours [
    [ "enable" ]
    [ "local" "enable" ]
    [ "local" "url" ]
    [ "local" "publicKey" ]
    [ "local" "priority" ]
    [ "local" "requireConnectivity" ]
    [ "remote" "enable" ]
    [ "remote" "substituters" ]
    [ "remote" "trustedPublicKeys" ]
  ];

  # Misspelt in a guide that people have copied from.
  misspelt = lib.mkRenamedOptionModule
    (theirs ++ [ "remote" "substituers" ])
    (ours ++ [ "remote" "substituters" ]);
in
{
  _class = "nixos";
  imports = [
    ./harmonia.nix
    ./binary-cache.nix
    misspelt
  ]
  ++ harmonia
  ++ binaryCache;
}
