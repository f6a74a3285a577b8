# Configurations of services.nix-queued.
{
  absent.module = { };
}
