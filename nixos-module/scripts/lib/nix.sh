# shellcheck shell=bash
# This machine's Nix: its settings, and what to ask of it.
# shellcheck source=nixos-module/scripts/lib/report.sh
. "${BASH_SOURCE[0]%/*}/report.sh"

_nix_settings=''
# Which of two spellings this Nix knows: 2.20 has renamed them.
_nix_new=no

# Reads all settings, as Nix itself sees them: nix.conf, what it includes,
# this user's own, NIX_CONFIG.
load_settings() {
  need nix "see https://nixos.org/download, or log in anew if it is installed"
  scratch_directory
  _nix_new=yes
  if ! _nix_settings=$(show_settings 2>"$scratch/said"); then
    _nix_new=no
    _nix_settings=$(show_settings 2>"$scratch/said") ||
      stop "$EXIT_FAILED" "nix show-config: $(one_line "$(<"$scratch/said")")"
  fi
  local line
  while IFS= read -r line; do
    case $line in
      *'unknown setting'*)
        warn nix.conf "${line#warning: }" \
          "a misspelt setting does nothing: correct it"
        ;;
    esac
  done <"$scratch/said"
}

# Every setting, a line each.
show_settings() {
  if [[ $_nix_new == yes ]]; then
    nix_tool config show
  else
    nix_tool show-config
  fi
}

# nix_tool WORD...: a command of `nix`, whatever nix.conf allows.
nix_tool() {
  within "$((limit + 10))" nix --extra-experimental-features nix-command "$@"
}

# setting NAME: its value; lists have spaces between their words.
setting() {
  printf '%s\n' "$_nix_settings" | sed -n "s/^$1 = //p" | head -n 1
}

# has_word WORD LIST
has_word() {
  case " $2 " in
    *" $1 "*) true ;;
    *) false ;;
  esac
}

# ping_store URL: connects to a store of any kind; stderr says what is wrong.
ping_store() {
  if [[ $_nix_new == yes ]]; then
    nix_tool store info --store "$1"
  else
    nix_tool store ping --store "$1"
  fi
}

# Where store paths are, as they name themselves.
store_dir() { printf '%s' "${NIX_STORE_DIR:-${NIX_STORE:-/nix/store}}"; }

# Nix's own state, where the GC roots are.
state_dir() { printf '%s' "${NIX_STATE_DIR:-/nix/var/nix}"; }

# is_trusted USER: whether the daemon lets USER decide about signatures and
# remote builders.
is_trusted() {
  local word words groups
  groups=$(id -Gn "$1" 2>/dev/null || true)
  read -r -a words <<<"$(setting trusted-users)"
  for word in ${words[@]+"${words[@]}"}; do
    case $word in
      '*' | "$1") return 0 ;;
      @*) has_word "${word#@}" "$groups" && return 0 ;;
    esac
  done
  return 1
}

# key_names LIST: of "name:base64" words.
key_names() {
  local word
  for word in $1; do printf '%s\n' "${word%%:*}"; done
}

# store_path THING: the store path that it is, lies in, or points to.
store_path() {
  local place path
  place=$(store_dir)
  path=$1
  case $path in
    "$place"/*) ;;
    */* | .*) path=$(readlink -f -- "$path") || return 1 ;;
    *) path=$place/$path ;;
  esac
  case $path in
    "$place"/*) path=${path#"$place"/} ;;
    *) return 1 ;;
  esac
  path=${path%%/*}
  [[ $path =~ ^[0-9a-z]{32}-. ]] || return 1
  printf '%s/%s' "$place" "$path"
}

# A store path that is here and that a cache of this machine ought to have:
# the newest pin, else the running system, else Nix itself.
some_path() {
  local roots root
  roots=${NIX_QUEUED_ROOTS_DIR:-$(state_dir)/gcroots/arm-cache}
  if [[ -d $roots ]]; then
    # shellcheck disable=SC2012  # names of store paths have no odd letters
    root=$(ls -t -- "$roots" 2>/dev/null | head -n 1)
    if [[ -n $root && -e $roots/$root ]]; then
      store_path "$roots/$root" && return
    fi
  fi
  for root in /run/current-system "$(command -v nix)"; do
    store_path "$root" 2>/dev/null && return
  done
  return 1
}

# file_mode FILE: "-rw-------" and the owner's number.
file_mode() {
  # shellcheck disable=SC2012  # stat's options differ, ls's do not
  ls -ldnL -- "$1" | awk '{ print substr($1, 1, 10), $3 }'
}

# check_key_file CHECK FILE FIX [group]: a secret that nobody else may read,
# or nobody but a group. Returns 1 if it is not right, 2 if only somebody else
# can tell.
check_key_file() {
  local mode owner
  if [[ ! -e $2 ]]; then
    if ((EUID != 0)); then
      bad "$1" "$2 is not there, or not for you to see" \
        "run this as root; if it is not there: $3"
    else
      bad "$1" "$2 is not there" "$3"
    fi
    return 1
  fi
  read -r mode owner <<<"$(file_mode "$2")"
  if [[ ${4-} == group ]]; then mode=${mode:0:4}---${mode:7}; fi
  if [[ ${mode:4} != ------ ]]; then
    bad "$1" "$2 is open to others ($mode)" \
      "chown root:root $2; chmod 600 $2 (ssh does not use such a key at all)"
    return 1
  fi
  if [[ ! -r $2 ]]; then
    warn "$1" "$2 cannot be read by you (owner $owner)" \
      "that is right for a root's key; run this as root to try it"
    return 2
  fi
}

# Whether `queuectl` is here and there is a queue that it knows of.
has_queue() { has queuectl && [[ -e $(queue_config) ]]; }

# The file that it would read.
queue_config() {
  local own=${XDG_CONFIG_HOME:-${HOME-}/.config}/nix-queued/queued.toml
  if [[ -n ${NIX_QUEUED_CONFIG-} ]]; then
    printf '%s' "$NIX_QUEUED_CONFIG"
  elif ((EUID != 0)) && [[ -e $own ]]; then
    printf '%s' "$own"
  else
    printf '/etc/nix-queued/queued.toml'
  fi
}

# What the agent knows about itself is asked of it, and repeated word by word.
check_queue() {
  has_queue || return 0
  if ((EUID != 0)) && [[ ! -O $(queue_config) ]]; then
    warn queue "is root's, and was not looked at" "sudo $program, or queuectl\
 status"
    return
  fi
  local said code=0
  if [[ $json == yes ]]; then
    said=$(ask_queue check --json 2>"$scratch/said") || code=$?
    if [[ $said == '['* ]]; then fact queue "$said"; fi
  else
    said=$(ask_queue check 2>"$scratch/said") || code=$?
    if [[ -n $said ]]; then
      say "--- queuectl check"
      say "$said"
      say "---"
    fi
  fi
  case $code in
    0) ok queue "queuectl check found nothing wrong" ;;
    124 | 142) bad queue "queuectl check took longer than a minute" \
      "queuectl status says which target hangs" ;;
    *)
      bad queue "queuectl check found something wrong $(<"$scratch/said")" \
        "queuectl check says what, and what to do about each"
      ;;
  esac
}

# ask_queue WORD...: asks queuectl, for no longer than a minute.
ask_queue() { within 60 queuectl "$@"; }
