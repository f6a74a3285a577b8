# The settings of the upload endpoint, complete: whatever is left out gets its
# default, and an attribute that does not exist is an error.
{
  listenAddresses ? [
    "0.0.0.0"
    "[::]"
  ],
  port ? 8081,
  # Where uploads go; nginx has to be able to write there.
  directory ? "/var/lib/nix-cache-upload",
  # Who may upload. Everybody may download.
  allowedNetworks ? [
    "127.0.0.0/8"
    "::1"
  ],
  # A file of users and hashed passwords, as htpasswd writes it. Asked for in
  # addition to the network; without networks it is enough.
  basicAuthFile ? null,
  # Whether what is there may be uploaded again, changed: Nix does that to add
  # a signature.
  allowOverwrite ? true,
  # What nix-cache-info says.
  priority ? (import ../cache.nix).priority,
  storeDir ? "/nix/store",
}:
{
  inherit
    listenAddresses
    port
    directory
    allowedNetworks
    basicAuthFile
    allowOverwrite
    priority
    storeDir
    ;
}
