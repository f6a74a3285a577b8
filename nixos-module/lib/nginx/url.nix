# The parts of an http or https URL, as nginx wants to be told them.
what: url:
let
  parts = builtins.match
    "(https?)://([^]/:@[]+|[[][0-9a-fA-F:]+[]])(:([0-9]+))?(/[^?#]*)?" url;
  part = n:
    let found = builtins.elemAt parts n; in
    if found == null then "" else found;
  withoutSlash = text:
    let cut = builtins.match "(.*[^/])/*" text; in
    if cut == null then "" else builtins.head cut;
in
if parts == null then
  throw "${what}: `${url}' is no URL http[s]://HOST[:PORT][/PATH]"
else
  {
    scheme = part 0;
    host = part 1;
    # As an upstream block has it.
    address = part 1 + (
      if part 3 != "" then part 2
      else if part 0 == "https" then ":443"
      else ":80"
    );
    path = withoutSlash (part 4);
    base = "${part 0}://${part 1}${part 2}${withoutSlash (part 4)}";
  }
