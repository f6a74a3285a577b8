# services.nix-builder.populate.
let
  populate = settings: {
    services.nix-builder.populate = {
      enable = true;
      flake = "/etc/nixos";
      outputs = [ "nixosConfigurations.desktop.config.system.build.toplevel" ];
    } // settings;
  };
  refused = module: fails: { inherit module fails; };
in
{
  absent.module = { };
  usual.module = populate { };
  weekly.module = populate {
    dates = "weekly";
    persistent = false;
    updateLock = true;
    user = "alice";
    pin = false;
  };
  remote.module = populate {
    flake = "github:example/machines";
    outputs = [ "hosts.a" "nixpkgs#hello" ];
  };

  noFlake = refused
    { services.nix-builder.populate = { enable = true; outputs = [ "a" ]; }; }
    "populate.flake is not set, so there is nothing to build from";
  noOutputs = refused (populate { outputs = [ ]; })
    "populate.outputs is empty, so nothing would ever be built";
  noLock = refused
    (populate { flake = "github:example/machines"; updateLock = true; })
    "github:example/machines is not a directory on this machine";
  wrongType = refused (populate { outputs = "a"; }) "populate.outputs";
}
