#!/usr/bin/env bash
# The whole road of a build, on a Nix of its own in a temporary directory:
# held, queued, signed, uploaded, read back, pinned, pruned.
#
# On a bare Debian 12 it installs what is missing first (as root, or with
# sudo), then builds the programs in build/release. It touches no /nix and
# leaves nothing behind. Exit code 0: every step did what it says.
set -euo pipefail

source_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=tests/support/packages.sh
. "$source_dir/tests/support/packages.sh"

bold='' green='' red='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi
step_number=0
step() {
  step_number=$((step_number + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$step_number" "$1" "$plain"
}
good() { printf '   %sok%s  %s\n' "$green" "$plain" "$1"; }
die() {
  printf '\n   %swrong%s  %s\n' "$red" "$plain" "$1" >&2
  exit 1
}
indent() { sed 's/^/   | /'; }
# expect WHAT COMMAND...: the command succeeds. refuse: it fails.
expect() {
  "${@:2}" >"$log" 2>&1 || { indent <"$log" >&2; die "$1"; }
  good "$1"
}
refuse() { if "${@:2}" >"$log" 2>&1; then die "$1"; fi; good "$1"; }

# --- Installing and building -------------------------------------------------

step "Install what is missing, and build"
install_missing "${build_packages[@]}" nix-bin sqlite3
build_dir=$source_dir/build/release
bin=$build_dir/bin
if [[ ! -e $build_dir/build.ninja ]]; then
  launcher=$(compiler_launcher)
  (cd "$source_dir" && cmake --preset release -DNIXQ_BUILD_TESTS=OFF \
    ${launcher:+"$launcher"} >/dev/null)
fi
cmake --build "$build_dir" --target queued-hook queued queuectl | tail -n 1 |
  indent
good "queued-hook, queued and queuectl are in build/release/bin"
started=$SECONDS

# --- A Nix of our own --------------------------------------------------------

# Short, because Unix sockets have 108 bytes for their whole name.
base=$(mktemp -d /tmp/nix-queued.XXXXXX)
log=$base/log
nix_daemon_pid='' queued_pid=''
finish() {
  local status=$?
  if ((status != 0)) && [[ -s $base/queued.log ]]; then
    printf '\nThe last words of queued:\n' >&2
    tail -n 15 "$base/queued.log" | indent >&2
  fi
  local pid
  for pid in $queued_pid $nix_daemon_pid; do
    kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
  done
  chmod -R u+w "$base" 2>/dev/null
  rm -rf "$base"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

step "A private Nix: store, daemon, key, and one line in nix.conf"
unset NIX_REMOTE NIX_PATH NIX_CONFIG
export NIX_STORE_DIR=$base/store NIX_STATE_DIR=$base/var NIX_CONF_DIR=$base/etc
export NIX_LOG_DIR=$base/var/log NIX_DATA_DIR=$base/share
export NIX_LOCALSTATE_DIR=$base/var NIX_DAEMON_SOCKET_PATH=$base/var/socket
export NIX_USER_CONF_FILES=/dev/null HOME=$base/home XDG_CACHE_HOME=$base/cache
export NIX_QUEUED_STATE_DIR=$base/queue
roots=$base/var/gcroots/arm-cache
mkdir -p "$NIX_STORE_DIR" "$NIX_STATE_DIR" "$NIX_CONF_DIR" "$HOME" \
  "$NIX_QUEUED_STATE_DIR"
NIX_CONFIG='build-users-group =' nix-store --generate-binary-cache-key \
  quickstart-1 "$base/key.secret" "$base/key.public"
key=$(<"$base/key.public")
cat >"$NIX_CONF_DIR/nix.conf" <<CONF
post-build-hook = $bin/queued-hook
trusted-public-keys = $key
trusted-users = root $(id -un)
sandbox = false
build-users-group =
substituters =
experimental-features = nix-command
CONF
nix-store --init
nix-daemon --daemon </dev/null >"$base/nix-daemon.log" 2>&1 &
nix_daemon_pid=$!
wait_for() {  # wait_for WHAT COMMAND...: 10 s at most
  local end=$((SECONDS + 10))
  until "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < end)) || die "$1 did not come up"
    sleep 0.02
  done
}
wait_for "the Nix daemon" test -S "$NIX_DAEMON_SOCKET_PATH"
export NIX_REMOTE=daemon
head -n 1 "$NIX_CONF_DIR/nix.conf" | indent
good "$(nix --version) in $base"

step "queued, with a directory as the cache"
cat >"$base/queued.toml" <<CONF
[[target]]
name = "cache"
url = "file://$base/binary-cache"

[signing]
key-files = ["$base/key.secret"]

[roots]
directory = "$roots"
max-age = "30d"

[nix]
store-dir = "$NIX_STORE_DIR"
state-dir = "$NIX_STATE_DIR"
daemon-socket = "$NIX_DAEMON_SOCKET_PATH"
CONF
indent <"$base/queued.toml"
queuectl() { "$bin/queuectl" --config "$base/queued.toml" "$@"; }
start_queued() {
  "$bin/queued" --config "$base/queued.toml" </dev/null \
    >>"$base/queued.log" 2>&1 &
  queued_pid=$!
  wait_for "queued" test -S "$NIX_QUEUED_STATE_DIR/status.sock"
}
expect "the configuration is good" \
  "$bin/queued" --check-config --config "$base/queued.toml"
start_queued
good "queued is running"

# --- Building ----------------------------------------------------------------

step "Build: a chain of three, and one with three outputs"
cat >"$base/things.nix" <<'NIX'
let
  make = name: script: more: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
  } // more);
in rec {
  letters = make "letters" "echo a b c > $out" { };
  words = make "words" "echo words from $letters > $out" { inherit letters; };
  book = make "book" "echo a book: $words, $library > $out" {
    inherit words library;
  };
  library = make "library"
    "echo headers > $dev; echo manual > $doc; echo code for $dev > $out"
    { outputs = [ "out" "dev" "doc" ]; };
}
NIX
nix-build --no-out-link "$base/things.nix" 2>&1 | indent
mapfile -t built < <(nix-build --no-out-link "$base/things.nix" 2>/dev/null)
book=$(nix-build --no-out-link "$base/things.nix" -A book 2>/dev/null)
good "nix-build never waited for an upload"

step "Wait until all of it is in the cache"
expect "queuectl wait" queuectl wait --timeout 60s
queuectl status | indent

step "The queue is an SQLite file"
db=$NIX_QUEUED_STATE_DIR/queue.db
show() {  # show QUERY: as a person would
  printf "   \$ sqlite3 -readonly -box queue.db '%s'\n" "$1"
  sqlite3 -readonly -box "$db" "$1" | indent
}
show 'select finished, name, outcome, attempts, sent_size_bytes from history'
[[ $(sqlite3 -readonly "$db" 'select count(*) from history') == 6 ]] ||
  die "six outputs were built, so there should be six rows"
good "all six outputs, also those that Nix 2.8 does not tell its hook"

step "With queued killed, builds go on and wait in the queue"
kill -KILL "$queued_pid"
wait "$queued_pid" 2>/dev/null || true
queued_pid=''
cat >"$base/late.nix" <<'NIX'
derivation {
  name = "late";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" "echo nobody was listening > $out" ];
}
NIX
late=$(nix-build --no-out-link "$base/late.nix" 2>/dev/null)
good "built ${late##*/} with nobody listening"
show 'select * from queue'
[[ $(sqlite3 -readonly "$db" 'select count(*) from queue') == 1 ]] ||
  die "the late build is not in the queue"
start_queued
expect "queued is back, and the queue is empty again" \
  queuectl wait --timeout 60s
[[ $(sqlite3 -readonly "$db" 'select count(*) from queue') == 0 ]] ||
  die "something is still in the queue"

step "The cache, and the roots that keep the paths"
(cd "$base/binary-cache" && find . -type f -printf '%8s  %P\n' | sort -k 2) |
  indent
(cd "$roots" && find . -type l -printf '%P -> %l\n' | sort) | indent
good "a narinfo and a NAR for each path, a root for each path"

# --- Proving it --------------------------------------------------------------

step "Proof: another store, which requires signatures, reads the cache"
# other_store KEY COMMAND...: as another machine that trusts only KEY.
other_store() {
  env -u NIX_STATE_DIR -u NIX_LOG_DIR -u NIX_LOCALSTATE_DIR \
    NIX_REMOTE="local?root=$base/other" NIX_CONF_DIR="$base/other-etc" \
    XDG_CACHE_HOME="$base/other-cache" NIX_CONFIG="
      experimental-features = nix-command
      build-users-group =
      substituters =
      require-sigs = true
      trusted-public-keys = $1" "${@:2}"
}
expect "another key's owner makes a key" nix-store \
  --generate-binary-cache-key quickstart-1 "$base/x.secret" "$base/x.public"
refuse "a store that trusts another key refuses the closure" \
  other_store "$(<"$base/x.public")" \
  nix copy --from "file://$base/binary-cache" "$book"
expect "a store that trusts our key copies the closure" \
  other_store "$key" nix copy --from "file://$base/binary-cache" "$book"
expect "nix store verify is content with every byte and signature" \
  other_store "$key" nix store verify --recursive "$book"
indent <"$base/other/nix/store/${book##*/}"

step "Proof: garbage collection spares what is pinned, and only that"
echo "nobody needs this" >"$base/litter"
litter=$(nix-store --add "$base/litter")
expect "a path without a root is there" nix-store --check-validity "$litter"
expect "nix-store --gc" nix-store --gc
refuse "the path without a root is gone" nix-store --check-validity "$litter"
expect "all that was built is still there" \
  nix-store --check-validity "${built[@]}" "$late"

step "Proof: prune removes what is old"
touch -h -d '40 days ago' "$roots/${late##*/}"
queuectl prune --dry-run | indent
[[ -L $roots/${late##*/} ]] || die "a dry run removed the root"
expect "queuectl prune" queuectl prune
[[ ! -e $roots/${late##*/} && -L $roots/${book##*/} ]] ||
  die "prune should take the 40 days old root and no other"
good "the root that was made to look 40 days old is gone, the others stay"
expect "nix-store --gc" nix-store --gc
refuse "now garbage collection has taken ${late##*/}" \
  nix-store --check-validity "$late"
expect "and spared the rest" nix-store --check-validity "${built[@]}"
expect "and ${late##*/} comes back from the cache" \
  nix copy --from "file://$base/binary-cache" "$late"

printf '\n%sAll of it works.%s %d seconds, without installing and building.\n' \
  "$bold" "$plain" $((SECONDS - started))
