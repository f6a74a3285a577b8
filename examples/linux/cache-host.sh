#!/usr/bin/env bash
# Makes a cache host of a Linux with systemd: Arch, Debian, or another one that
# has Nix and nginx already. It may be run again: what is there stays.
#
#   sudo ./cache-host.sh --dry-run
#   sudo ./cache-host.sh --name cachy.local-1
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
scripts=$here/../../nixos-module/scripts

server=harmonia
proxy=yes
name=$(uname -n)-1
root=''
dry_run=no

help() {
  cat <<'END'
Usage: cache-host.sh [OPTION...]

  --server WHICH   harmonia (default) or nix-serve
  --no-proxy       nginx hands on to it, and keeps no copies of cache.nixos.org
  --name NAME      of the signing key (HOSTNAME-1)
  --root DIR       write files below DIR, and start nothing: for images
  --dry-run        only print what would be done
  -h, --help       print this and exit

Exit status: 0 done, 1 failed, 2 the command line is wrong.
END
}

usage() {
  echo "cache-host.sh: $1; see --help" >&2
  exit 2
}

while (($#)); do
  case $1 in
    --server | --name | --root) (($# > 1)) || usage "$1 needs a value" ;;
  esac
  case $1 in
    --server)
      [[ $2 == harmonia || $2 == nix-serve ]] ||
        usage "--server is harmonia or nix-serve"
      server=$2
      shift
      ;;
    --no-proxy) proxy=no ;;
    --name)
      name=$2
      shift
      ;;
    --root)
      root=$2
      shift
      ;;
    --dry-run) dry_run=yes ;;
    -h | --help)
      help
      exit 0
      ;;
    *) usage "there is no option $1" ;;
  esac
  shift
done

# run COMMAND...: prints it, and does it.
run() {
  printf '+ %s\n' "$*"
  [[ $dry_run == yes ]] || "$@"
}

# start COMMAND...: as run, but not for an image.
start() {
  if [[ -z $root ]]; then run "$@"; fi
}

install_packages() {
  if command -v pacman >/dev/null; then
    start pacman -S --needed --noconfirm nix nginx curl
  elif command -v apt-get >/dev/null; then
    start apt-get install --yes nix-bin nix-setup-systemd nginx curl
  fi
  if [[ $dry_run == no ]]; then
    for program in nix nix-store nginx; do
      command -v "$program" >/dev/null || {
        echo "cache-host.sh: $program is missing; install it first" >&2
        exit 1
      }
    done
  fi
  start systemctl enable --now nix-daemon.socket
}

install_server() {
  start nix --extra-experimental-features 'nix-command flakes' \
    profile install --profile /nix/var/nix/profiles/nix-cache \
    "nixpkgs#$server"
  run install -D -m 644 "$here/$server.service" \
    "$root/etc/systemd/system/$server.service"
  if [[ $server == harmonia ]]; then
    run install -D -m 644 "$here/harmonia.toml" \
      "$root/etc/nix-cache/harmonia.toml"
  fi
}

# The server's unit hands the key on: it belongs to root alone.
make_key() {
  run bash "$scripts/offload-generate-cache-keys" --name "$name" \
    --secret "$root/etc/nix-cache/signing-key" \
    --public "$root/etc/nix-cache/signing-key.pub"
}

# nginx asks a name server itself, and wants to be told which.
name_server() {
  awk '$1 == "nameserver" { print $2; exit }' /etc/resolv.conf 2>/dev/null
}

install_nginx() {
  local target=$root/etc/nginx/conf.d/nix-cache.conf
  if [[ $proxy == yes ]]; then
    echo "+ nginx.nix > $target"
    if [[ $dry_run == no ]]; then
      mkdir -p "$(dirname -- "$target")"
      nix --extra-experimental-features nix-command eval --raw \
        --file "$here/nginx.nix" proxy \
        --argstr resolver "$(name_server)" >"$target.new"
      mv "$target.new" "$target"
    fi
    run mkdir -p "$root/var/cache/nginx"
  else
    run install -D -m 644 "$here/nginx-serve.conf" "$target"
  fi
  start nginx -t
  if [[ $dry_run == no && -z $root ]] && ! nginx -T 2>/dev/null |
    grep -q 'server_name.* cachy.local'; then
    echo "cache-host.sh: nginx does not read $target: add" \
      "\"include /etc/nginx/conf.d/*.conf;\" to the http block of" \
      "/etc/nginx/nginx.conf and run this again" >&2
    exit 1
  fi
}

install_packages
install_server
make_key
install_nginx
start systemctl daemon-reload
start systemctl enable --now "$server.service"
start systemctl enable --now nginx.service
start systemctl reload-or-restart nginx.service
start bash "$scripts/offload-server-status" --no-builder \
  --key-file /etc/nix-cache/signing-key
