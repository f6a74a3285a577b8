# The build fleet: what `services.nix-builder.coordinator.builders` and
# mkMachinesFile can be given as it is. builder.nix says what else an entry may
# have.
[
  {
    hostname = "nas-01";
    # Fast disks: preferred while it has a free slot.
    speedFactor = 2;
  }
  { hostname = "nix-01"; }
  { hostname = "nix-02"; }
  { hostname = "nix-03"; }
]
