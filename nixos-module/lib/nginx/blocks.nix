# Blocks of nginx configuration, indented.
rec {
  block = head: body:
    let
      lines = builtins.filter (line: builtins.isString line && line != "")
        (builtins.split "\n" body);
    in
    "${head} {\n"
    + builtins.concatStringsSep "" (map (line: "  ${line}\n") lines)
    + "}\n";

  location = name: block "location ${name}";

  listen = addresses: port:
    builtins.concatStringsSep ""
      (map (address: "listen ${address}:${toString port};\n") addresses);

  # Says which store this is a cache of. A fixed answer: it is there with all
  # tiers down, and its priority is ours, not that of the local server. `rest`
  # is for what is neither GET nor HEAD.
  cacheInfo = { storeDir, priority, ... }: rest: location "= /nix-cache-info" ''
    default_type text/x-nix-cache-info;
    if ($request_method ~ "^(GET|HEAD)$") {
      return 200 "StoreDir: ${storeDir}\nWantMassQuery: 1\nPriority: ${
        toString priority
      }\n";
    }
    ${rest}
  '';
}
