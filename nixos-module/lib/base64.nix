# Base64 (RFC 4648) of printable ASCII text.
text:
let
  inherit (builtins) elemAt genList stringLength substring;

  printable = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    + "[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
  digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

  # { " " = 32; "!" = 33; ... }
  codes = builtins.listToAttrs (genList
    (i: { name = substring i 1 printable; value = i + 32; })
    (stringLength printable));

  size = stringLength text;
  character = i: substring i 1 text;
  code = i:
    if i >= size then 0
    else codes.${character i} or
      (throw "base64: `${text}' is not all printable ASCII");

  # Three characters become four digits; "=" stands for what is not there.
  group = n:
    let
      at = 3 * n;
      bits = code at * 65536 + code (at + 1) * 256 + code (at + 2);
      digit = divisor:
        let all = bits / divisor; in
        substring (all - all / 64 * 64) 1 digits;
    in
    digit 262144 + digit 4096
    + (if at + 1 < size then digit 64 else "=")
    + (if at + 2 < size then digit 1 else "=");
in
builtins.concatStringsSep "" (genList group ((size + 2) / 3))
