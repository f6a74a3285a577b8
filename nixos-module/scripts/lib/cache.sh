# shellcheck shell=bash
# A binary cache as a client meets it: over HTTP, with what Nix would send.
# shellcheck source=nixos-module/scripts/lib/nix.sh
. "${BASH_SOURCE[0]%/*}/nix.sh"

# Where a cache keeps nothing that was built here.
UPSTREAM='https://cache.nixos.org'

# cache_host URL: with its port, if the URL has one.
cache_host() {
  local rest=${1#*://}
  rest=${rest%%[/?]*}
  printf '%s' "${rest##*@}"
}

# Without parameters and the last slash, to append a name to.
cache_base() {
  local url=${1%%\?*}
  printf '%s' "${url%/}"
}

is_upstream() { [[ $(cache_base "$1") == "$UPSTREAM" ]]; }

# narinfo_url URL PATH
narinfo_url() {
  local name=${2##*/}
  printf '%s/%s.narinfo' "$(cache_base "$1")" "${name:0:32}"
}

# http_get URL: the answer's code in $http_code (000: none), curl's exit code
# in $http_exit, seconds in $http_seconds, the body in $scratch/body.
http_get() {
  need curl "install it: every check over HTTP is made with it"
  local options said netrc ca=${NIX_SSL_CERT_FILE-}
  options=(--silent --show-error --location --max-redirs 5
    --connect-timeout "$limit" --max-time "$((limit * 2))"
    --max-filesize 1000000 --output "$scratch/body"
    --write-out '%{http_code} %{time_total}')
  # A file of credentials, so that none is an argument.
  netrc=$(setting netrc-file)
  if [[ -n $netrc && -r $netrc ]]; then options+=(--netrc-file "$netrc"); fi
  if [[ -n $ca && -r $ca ]]; then options+=(--cacert "$ca"); fi
  : >"$scratch/body"
  http_exit=0
  said=$(curl "${options[@]}" -- "$1" 2>"$scratch/curl") || http_exit=$?
  read -r http_code http_seconds <<<"${said:-000 0}"
}

# http_trouble CHECK URL: what it means that http_get did not get 200.
http_trouble() {
  local check=$1 url=$2 host said
  host=$(cache_host "$url")
  said=$(sed 's/^curl: ([0-9]*) //' "$scratch/curl" | head -n 1)
  case $http_exit in
    0) http_answer "$check" "$url" ;;
    5 | 6)
      away "$check" "the name of $host is not known here" \
        "is this machine in the cache's network (tailscale status, VPN)? else\
 use the address instead of the name"
      ;;
    7)
      away "$check" "$host refuses connections, or there is no way to it:\
 $said" \
        "on the cache host: systemctl status nginx harmonia nix-serve; is its\
 firewall open for this port, and the port right?"
      ;;
    28)
      away "$check" "$host did not answer within $limit s" \
        "is the host on, and this machine in its network (tailscale status)?\
 a firewall that drops looks like this, too"
      ;;
    35 | 51 | 53 | 54 | 58 | 59 | 60 | 66 | 77 | 80 | 82 | 83 | 90 | 91)
      bad "$check" "no TLS with $host: $said" \
        "on the cache host: sudo certbot certificates, then sudo certbot\
 renew; is the clock right? a private authority goes into ssl-cert-file"
      ;;
    47) bad "$check" "$url redirects in circles" "look at the proxy's rules" ;;
    63) bad "$check" "$url answers with more than a megabyte" \
      "that is no binary cache" ;;
    *) bad "$check" "$url: $said" "curl -v $url shows the conversation" ;;
  esac
}

# http_answer CHECK URL: a code that is not 200.
http_answer() {
  local check=$1 url=$2
  case $http_code in
    401 | 403 | 407)
      bad "$check" "$url wants credentials (HTTP $http_code)" \
        "put \"machine $(cache_host "$url") login ... password ...\" into the\
 file that netrc-file in nix.conf names; a daemon reads root's"
      ;;
    404)
      bad "$check" "$url is not there (HTTP 404)" \
        "a web server answers, but it is no binary cache: is the path right,\
 and has the upload endpoint a nix-cache-info yet?"
      ;;
    429)
      bad "$check" "the server is asked too much (HTTP 429)" \
        "lower http-connections in nix.conf"
      ;;
    500)
      bad "$check" "the cache server fails at it (HTTP 500)" \
        "on the cache host: journalctl -u harmonia -u nix-serve -n 50; most\
 often its user may not read the signing key, or not reach the Nix store;\
 then restart it. Meanwhile: --option substituters $UPSTREAM"
      ;;
    502 | 503 | 504)
      bad "$check" "a proxy answers, the cache behind it does not\
 (HTTP $http_code)" \
        "on the cache host: systemctl status harmonia nix-serve, and does the\
 proxy know its port?"
      ;;
    *) bad "$check" "$url: HTTP $http_code" "curl -v $url shows more" ;;
  esac
}

# cache_field NAME: of the nix-cache-info or narinfo that was just read.
cache_field() { sed -n "s/^$1: *//p" "$scratch/body" | tr -d '\r'; }

# look_at_cache URL: whether it is a cache that this machine can use. Leaves
# $cache_priority, $cache_query and $cache_ms.
look_at_cache() {
  local url=$1 base check dir
  base=$(cache_base "$url")
  check="cache $base"
  # shellcheck disable=SC2034  # the callers use them
  cache_priority='' cache_query='' cache_ms=''
  case $url in
    http://* | https://*) ;;
    *)
      look_at_store "$check" "$url"
      return
      ;;
  esac
  http_get "$base/nix-cache-info"
  if [[ $http_exit != 0 || $http_code != 200 ]]; then
    http_trouble "$check" "$base/nix-cache-info"
    return 1
  fi
  dir=$(cache_field StoreDir)
  # shellcheck disable=SC2034
  cache_query=$(cache_field WantMassQuery)
  cache_priority=$(cache_field Priority)
  if [[ $url =~ [?\&]priority=([0-9]+) ]]; then
    cache_priority=${BASH_REMATCH[1]}
  fi
  # What Nix itself takes when the cache does not say.
  cache_priority=${cache_priority:-50}
  cache_ms=$(awk -v s="$http_seconds" 'BEGIN { printf "%d", s * 1000 }')
  if [[ -z $dir ]]; then
    bad "$check" "its nix-cache-info has no StoreDir" \
      "something else answers there, a login page for instance:\
 curl $base/nix-cache-info"
    return 1
  fi
  if [[ $dir != "$(store_dir)" ]]; then
    bad "$check" "it is for a store in $dir, not in $(store_dir)" \
      "paths contain the store's place: this machine can never use it"
    return 1
  fi
  ok "$check" "answers in $cache_ms ms, priority $cache_priority"
}

# look_at_store CHECK URL: a cache that is not behind HTTP.
look_at_store() {
  local check=$1 url=$2 directory
  if [[ $url == file://* ]]; then
    directory=$(cache_base "${url#file://}")
    if [[ ! -e $directory/nix-cache-info ]]; then
      bad "$check" "$directory has no nix-cache-info" \
        "is the file system mounted, and was anything ever uploaded to it?"
      return 1
    fi
  elif ! ping_store "$url" >"$scratch/body" 2>"$scratch/said"; then
    bad "$check" "$(<"$scratch/said")" "nix store ping --store '$url' says more"
    return 1
  fi
  ok "$check" "answers"
}

# Nix's own memory of what a cache has is not asked when we look.
FRESH=(--option narinfo-cache-positive-ttl 0
  --option narinfo-cache-negative-ttl 0)

# look_for_path URL PATH KEYS: whether a cache has a path, and this machine
# would take it. Returns 0 if so, 1 if it has not got it, 2 if it is no use.
look_for_path() {
  local url=$1 path=$2 keys=$3 base check signers key
  base=$(cache_base "$url")
  check="path ${path##*/}"
  case $url in
    http://* | https://*) ;;
    *)
      nix_tool path-info --store "$url" "${FRESH[@]}" "$path" \
        >/dev/null 2>&1 || return 1
      ok "$check" "$base has it"
      return 0
      ;;
  esac
  http_get "$(narinfo_url "$url" "$path")"
  case $http_exit:$http_code in
    0:200) ;;
    0:404) return 1 ;;
    *)
      http_trouble "$check" "$(narinfo_url "$url" "$path")"
      return 2
      ;;
  esac
  signers=$(key_names "$(cache_field Sig)" | sort -u | tr '\n' ' ')
  signers=${signers% }
  # The signatures' names tell the reason, the verification the truth.
  if nix_tool store verify --no-contents --store "$url" "${FRESH[@]}" \
    --option trusted-public-keys "$keys" "$path" >/dev/null 2>"$scratch/said"
  then
    ok "$check" "$base has it, signed by ${signers:-its own content},\
 $(cache_field FileSize) bytes $(cache_field Compression)"
    return 0
  fi
  if ! grep -q 'is untrusted' "$scratch/said"; then
    bad "$check" "$base: $(<"$scratch/said")" \
      "curl $(narinfo_url "$url" "$path")"
    return 2
  fi
  if [[ -z $signers ]]; then
    bad "$check" "$base has it without any signature" \
      "give the cache server a signing key, or on the machine that built it:\
 nix store sign --key-file KEY $path, and upload it again"
    return 2
  fi
  for key in $(key_names "$keys"); do
    if has_word "$key" "$signers"; then
      bad "$check" "$base has it, signed by a key that calls itself $key but is\
 not the one that is trusted here" \
        "compare trusted-public-keys with the cache host's public key: one of\
 them is out of date"
      return 2
    fi
  done
  bad "$check" "$base has it, signed by $signers, which is not trusted here" \
    "add the public key of $signers to trusted-public-keys (nix.conf), or\
 sign it anew: nix store sign --key-file KEY $path"
  return 2
}
