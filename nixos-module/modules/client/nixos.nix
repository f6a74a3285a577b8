# services.nix-builder.client on NixOS.
{
  _class = "nixos";
  imports = [ ./settings.nix ];
}
