# Configurations that bring the commands with them.
let
  enable = { services.nix-builder.utilities.enable = true; };
in
{
  alone.module = enable;

  mac = {
    class = "darwin";
    module = enable // {
      imports = [ ../../../nixos-module/modules/utilities.nix ];
    };
  };

  defaults.module = enable // {
    services.nix-builder.utilities = {
      enable = true;
      environment = { OFFLOAD_HOST = "desktop"; OFFLOAD_CACHE_PORT = "5001"; };
    };
    services.offload-server = {
      enable = true;
      cacheKeyPath = "/run/keys/cache";
      builderUser = "builder";
      authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA laptop" ];
    };
  };

  harmonia.module = enable // {
    services.nix-builder = {
      utilities.enable = true;
      harmonia = {
        enable = true;
        port = 5003;
        signKeyPath = "/run/keys/harmonia";
      };
    };
  };

  quoting.module.services.nix-builder.utilities = {
    enable = true;
    environment.OFFLOAD_HOST = "$(reboot)";
  };
  quoting.fails = "services.nix-builder.utilities.environment.OFFLOAD_HOST";
}
