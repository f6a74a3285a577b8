# shellcheck shell=bash
# Uploading paths by hand, and what it means when that fails.
# shellcheck source=nixos-module/scripts/lib/cache.sh
. "${BASH_SOURCE[0]%/*}/cache.sh"

# push TO KEY-FILE SECONDS PATH...: to the store TO, or through the queue if
# that is empty.
push() {
  local to=$1 key_file=$2 patience=$3 given path resolved=()
  shift 3
  for given; do
    path=$(store_path "$given") ||
      usage "'$given' is no store path and leads to none"
    nix-store --check-validity "$path" 2>/dev/null ||
      stop "$EXIT_FAILED" "$path is not in this store; build it first"
    resolved+=("$path")
  done
  if [[ -n $to ]]; then
    push_by_copy "$to" "$key_file" "$patience" "${resolved[@]}"
  elif has_queue; then
    push_by_queue "$patience" "${resolved[@]}"
  else
    usage "no cache to push to: give --to, or set up nix-queued, which pushes\
 everything by itself"
  fi
}

# push_by_queue SECONDS PATH...: it signs, sends, tries again and pins.
push_by_queue() {
  local patience=$1 code=0
  shift
  within "$patience" queuectl add --closure "$@" >"$scratch/said" 2>&1 ||
    stop "$EXIT_FAILED" "queuectl add: $(one_line "$(<"$scratch/said")")"
  within "$((patience + 10))" queuectl wait --timeout "${patience}s" "$@" \
    >"$scratch/said" 2>&1 || code=$?
  case $code in
    0) ok push "every target of the queue has it" ;;
    3)
      bad push "it is queued, but the daemon does not run" \
        "systemctl start nix-queued; the paths are kept until then"
      ;;
    *)
      bad push "it is queued, but not at every target: $(<"$scratch/said")" \
        "queuectl show $1 says what happens next; nothing is lost"
      ;;
  esac
}

# push_by_copy TO KEY-FILE SECONDS PATH...
push_by_copy() {
  local to=$1 key_file=$2 patience=$3 path
  shift 3
  if [[ -n $key_file ]]; then
    sign_paths "$key_file" "$patience" "$@" || return 0
  fi
  if [[ $to == http* ]]; then
    http_get "$(cache_base "$to")/nix-cache-info"
    # An upload endpoint that is new has none yet (404), and is given one.
    case $http_exit:$http_code in
      0:200 | 0:404) ;;
      *)
        http_trouble "cache $to" "$(cache_base "$to")/nix-cache-info"
        return 0
        ;;
    esac
  fi
  if ! within "$patience" nix --extra-experimental-features nix-command \
    copy --to "$to" "$@" >"$scratch/said" 2>&1; then
    copy_trouble "$to"
    return 0
  fi
  for path; do
    if nix_tool path-info --store "$to" "${FRESH[@]}" "$path" \
      >/dev/null 2>"$scratch/said"; then
      ok "push ${path##*/}" "$to has it now"
    else
      bad "push ${path##*/}" "$to took it, but does not show it:\
 $(<"$scratch/said")" "is what serves this cache the same that takes uploads?"
    fi
  done
  if [[ $to == ssh* ]]; then
    warn push "nothing keeps it there: the garbage collector of that machine\
 may take it" \
      "upload through nix-queued with pin-remote = true, or make a root there"
  fi
}

# sign_paths KEY-FILE SECONDS PATH...: in the local store.
sign_paths() {
  local key_file=$1 patience=$2
  shift 2
  check_key_file 'signing key' "$key_file" \
    "offload-generate-cache-keys makes one" group || return 1
  if ! within "$patience" nix --extra-experimental-features nix-command \
    store sign --recursive --key-file "$key_file" "$@" >"$scratch/said" 2>&1
  then
    bad sign "$(<"$scratch/said")" \
      "before Nix 2.17 only trusted-users may sign in the local store"
    return 1
  fi
}

# copy_trouble TO: what `nix copy` said, and what it means.
copy_trouble() {
  local said
  # Nix repeats itself while it tries again; its last error is the one.
  said=$(grep '^error:' "$scratch/said" | tail -n 1 || true)
  said=${said:-$(tail -n 4 "$scratch/said")}
  case $said in
    *'HTTP error 403'* | *'HTTP error 404'* | *'HTTP error 405'* | \
      *'HTTP error 501'*)
      bad push "$1 takes no uploads: $said" \
        "Harmonia and nix-serve only serve: push over ssh-ng:// to their\
 machine, or to an upload endpoint (services.nix-builder.uploadEndpoint);\
 there, your address has to be allowed"
      ;;
    *'HTTP error 413'*)
      bad push "the server finds it too large: $said" \
        "nginx there needs client_max_body_size 0"
      ;;
    *'lacks a '*signature*)
      bad push "$1 does not take what it cannot verify: $said" \
        "sign with --key-file by a key in trusted-public-keys there, or put\
 the login into trusted-users there"
      ;;
    *'SSH connection'* | *'cannot open connection'* | *'Permission denied'*)
      bad push "no login at $1: $said" \
        "try: ssh ${1#*://} nix-store --version; offload-status knows more"
      ;;
    *) bad push "$said" "nix copy --to '$1' -v ... shows more" ;;
  esac
}
