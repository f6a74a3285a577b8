# shellcheck shell=bash
# The machine that others build on and fetch from.
# shellcheck source=nixos-module/scripts/lib/builder.sh
. "${BASH_SOURCE[0]%/*}/builder.sh"

cache_port=${OFFLOAD_CACHE_PORT:-5000}
cache_url=''
cache_key=${OFFLOAD_CACHE_KEY:-/var/cache-priv-key.pem}

# What does not answer on this very machine is not away, it is broken.
away() { bad "$@"; }

server_help() {
  cat <<'END'
  --port PORT      of the cache server on this machine (OFFLOAD_CACHE_PORT,
                   5000)
  --url URL        where the cache is asked (http://127.0.0.1:PORT)
  --key-file FILE  the secret key that it signs with (OFFLOAD_CACHE_KEY,
                   /var/cache-priv-key.pem)
  --user USER      who builders log in as (OFFLOAD_USER, nix-builder)
END
}

# server_option "$@": takes one of these; like common_option.
server_option() {
  # shellcheck disable=SC2034
  taken=2
  case $1 in
    --port | --url | --key-file | --user) needs_value "$@" ;;
  esac
  case $1 in
    --port)
      [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || usage "--port takes a number, not '$2'"
      cache_port=$2
      ;;
    --url) cache_url=$2 ;;
    --key-file) cache_key=$2 ;;
    --user) builder_user=$2 ;;
    *) common_option "$@" ;;
  esac
}

the_cache_url() { printf '%s' "${cache_url:-http://127.0.0.1:$cache_port}"; }

# The public half of $cache_key; the secret one is never an argument.
public_key() {
  nix_tool key convert-secret-to-public <"$cache_key" 2>"$scratch/said"
}

# check_signing_key: leaves the public key in $public.
check_signing_key() {
  public=''
  check_key_file "signing key" "$cache_key" \
    "offload-generate-cache-keys --secret $cache_key makes one; without it\
 clients refuse what this machine serves" group || return 0
  if public=$(public_key); then
    ok "signing key" "$cache_key; clients trust $public"
    fact public_key "$(json_string "$public")"
  else
    bad "signing key" "$cache_key is none: $(<"$scratch/said")" \
      "it is one line, name:base64, as offload-generate-cache-keys writes it"
  fi
}
