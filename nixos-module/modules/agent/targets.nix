# One cache that paths go to: the keys of a [[target]] in queued.toml(5), in
# camel case. What is null is left to the program's own default.
{ lib, name, ... }:
let
  inherit (lib) mkOption types;
  secretFile = import ./secret-file.nix lib;

  key = type: example: description: mkOption {
    type = types.nullOr type;
    default = null;
    inherit example description;
  };
  flag = key types.bool true;
  strings = key (types.listOf types.str);
  duration = key types.str;
  size = key (types.either types.ints.positive types.str);
in
{
  options = {
    name = mkOption {
      type = types.strMatching "[A-Za-z0-9._-]{1,64}";
      default = name;
      defaultText = lib.literalExpression "<name>";
      description = ''
        Name in messages, in the queue and for `queuectl`. The queue knows a
        target by it: with another name it is another target.
      '';
    };

    url = mkOption {
      type = types.str;
      example = "ssh-ng://nix-ssh@nas";
      description = ''
        Where paths go: `file:///directory`, `http[s]://host[:port][/path]` of
        a server that takes PUT, `ssh[-ng]://[user@]host[:port]` of another
        machine's store, or `local:http[s]://host[:port][/path]` of a server
        of this machine's own store, to which nothing is sent: there paths are
        signed, and done once the server shows them. `local:` alone asks
        nobody: what is signed is done.
      '';
    };

    # --- What is sent.
    closure = flag ''
      Whether to send all that a path references as well. Not for `local:`.
      The program's default is true.
    '';
    include = strings [ "linux-*" ] ''
      Patterns. Only paths whose name, without the hash, matches one of them
      are sent. The program's default is all.
    '';
    exclude = strings [ "*-doc" ] "Patterns of names that are not sent.";
    maxNarSize = size "2 GiB" ''
      Size of the largest NAR that is sent, in bytes or with a unit.
    '';
    systems = strings [ "aarch64-linux" ] ''
      The systems whose builds are sent. The program's default is all.
    '';
    skipSignedBy = strings [ "cache.nixos.org-1" ] ''
      Names of keys. References that one of them has signed are not sent; what
      was built here always is. For `file:` and `http(s):`.
    '';
    upstreams = strings [ "https://cache.nixos.org" ] ''
      URLs of caches. References that one of them has are not sent; whoever
      uses the target has to use them, too. For `file:` and `http(s):`.
    '';

    # --- Binary caches.
    compression = key (types.enum [ "zstd" "xz" "none" ]) "zstd" ''
      For `file:` and `http(s):`. The program's default is zstd.
    '';
    compressionLevel = key types.ints.unsigned 9 ''
      1 to 19 for zstd, 0 to 9 for xz.
    '';
    priority = key types.ints.unsigned 30 ''
      The priority in the nix-cache-info that is created where there is none.
      Clients ask caches with lower numbers first. The program's default is 40.
    '';
    wantMassQuery = flag "The WantMassQuery of that nix-cache-info.";

    # --- HTTP.
    netrcFile = key secretFile "/run/keys/netrc" ''
      File with users and passwords, as curl(1) reads it.
    '';
    bearerTokenFile = key secretFile "/run/keys/cache-token" ''
      File whose content is sent as bearer token.
    '';
    clientCertificateFile = key secretFile "/run/keys/client.pem" ''
      File with a TLS client certificate, PEM.
    '';
    clientKeyFile = key secretFile "/run/keys/client-key.pem" ''
      File with the certificate's private key, PEM. The program's default is
      the file of the certificate.
    '';
    caFile = key types.path "/etc/ssl/our-ca.pem" ''
      File with the certificate authorities to trust, PEM. The program's
      default is the system's.
    '';
    connectLimit = duration "15s" "How long connecting may take.";
    stallLimit = duration "60s" ''
      How long a transfer may be silent. There is no limit to how long it may
      take.
    '';
    maxConnections = key types.ints.positive 16 ''
      How many connections there may be at once.
    '';

    # --- SSH.
    sshKeyFile = key secretFile "/run/keys/nix-upload" ''
      File with the private key to log in with.
    '';
    sshKnownHostsFile = key types.path "/etc/nix-queued/known_hosts" ''
      File with the host keys to accept; they are always checked. The
      program's default is that of ssh(1), so hosts in
      {option}`programs.ssh.knownHosts` are known.
    '';
    sshOptions = strings [ "Compression=yes" ] ''
      Options `Name=value` for ssh(1), without spaces.
    '';
    sshRemoteProgram = key types.str "/run/current-system/sw/bin/nix-daemon" ''
      The program that serves the store there.
    '';
    sshRemoteStore = key types.str "/mnt/store" ''
      The store there, if it is not the usual one.
    '';
    substituteOnDestination = flag ''
      Whether the other machine fetches from its own caches what it can.
    '';
    pinRemote = flag ''
      Whether to make a GC root on the other machine for what was sent, and to
      prune it when it is older than {option}`services.nix-queued.roots.maxAge`.
      Without it the garbage collector there may take what was sent.
    '';
    remoteRootsDirectory = key types.str "/nix/var/nix/gcroots/arm-cache" ''
      The directory of these roots, which the user in the URL has to be able
      to write. They are in a directory of this machine's own in it, and
      nothing else there is ever pruned from here. The program's default is
      the one of the example.
    '';
    batchPaths = key types.ints.positive 500 ''
      How many paths one copy takes at most.
    '';
    batchSize = size "4 GiB" ''
      Size of the NARs that one copy takes at most.
    '';
  };
}
