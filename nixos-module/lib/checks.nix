# Assertions and findings that several modules need. A message says what is
# wrong, why that matters, and what to do.
let
  is = pattern: text: builtins.match pattern text != null;
  isPublicKey = is "[^:[:space:]]+:[A-Za-z0-9+/]{43}=";
  isSecretKey = is "[^:[:space:]]+:[A-Za-z0-9+/]{86}==";
  startsWith = start: text:
    builtins.substring 0 (builtins.stringLength start) text == start;

  # Caches whose keys are called after them.
  known = "cache[.]nixos[.]org|[^/:]*[.]cachix[.]org";

  # The name of a key, without what comes after the colon.
  nameOf = key: builtins.head (builtins.match "([^:]*).*" key);
in
{
  # A secret key, named by the option `option`. null is none, which is fine.
  outsideStore = option: path:
    let
      text = toString path;
    in
    {
      assertion = path == null || !startsWith "${builtins.storeDir}/" text;
      message = ''
        ${option} is ${text}: everybody who can read the Nix store can read this
        secret, and every cache that is pushed to gets a copy. Keep it outside
        of the store (agenix, sops-nix, or a file of root's), name that place as
        a string, and replace this key.
      '';
    };

  # Keys of binary caches.
  publicKeys = option: keys:
    let
      secret = builtins.filter isSecretKey keys;
      wrong = builtins.filter (key: !isPublicKey key && !isSecretKey key) keys;
    in
    [
      {
        assertion = secret == [ ];
        message = ''
          ${option} has a secret key,
          ${builtins.concatStringsSep ", " (map nameOf secret)}: it is now
          readable by everybody on this machine. Put the public key there (`nix
          key convert-secret-to-public` makes it), and replace the pair.
        '';
      }
      {
        assertion = wrong == [ ];
        message = ''
          ${option} has `${builtins.concatStringsSep "', `" wrong}', which is no
          public key of a binary cache (NAME:BASE64, 44 characters after the
          colon): Nix would refuse what the cache serves, or fail altogether.
          Copy the whole line of the .pub file that `nix-store
          --generate-binary-cache-key` has written on the cache host.
        '';
      }
    ];

  # The keys that do not belong to a cache known all over the world.
  ownKeys = builtins.filter (key: !is "(${known})-[0-9]+" (nameOf key));

  # The caches among `urls` whose keys have a name that is known beforehand, and
  # are not in `keys`.
  withoutKey = urls: keys:
    let
      host = url:
        let parts = builtins.match "https?://(${known})([/:?].*)?" url; in
        if parts == null then null else builtins.head parts;
      hasKey = host: builtins.any (startsWith "${host}-") keys;
    in
    builtins.filter (url: host url != null && !hasKey (host url)) urls;

  # NixOS and nix-darwin add cache.nixos.org by themselves, with a slash: once
  # more without it would be asked twice for everything.
  withoutUpstream = builtins.filter
    (url: !is "https://cache[.]nixos[.]org/?" url);
}
