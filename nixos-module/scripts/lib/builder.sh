# shellcheck shell=bash
# Machines that build for this one: which ones Nix knows, and whether they
# would.
# shellcheck source=nixos-module/scripts/lib/cache.sh
. "${BASH_SOURCE[0]%/*}/cache.sh"

# What the commands about one builder take; else it is what Nix is configured
# with.
builder_host=${OFFLOAD_HOST-}
builder_user=${OFFLOAD_USER:-nix-builder}
builder_key=${OFFLOAD_KEY-}
builder_system=${OFFLOAD_SYSTEM-}

builder_help() {
  cat <<'END'
  --host HOST      a builder by name or address, instead of the configured ones
                   (OFFLOAD_HOST)
  --user USER      who to log in as there (OFFLOAD_USER, nix-builder)
  --key FILE       with which SSH key (OFFLOAD_KEY)
  --system SYSTEM  what it builds for (OFFLOAD_SYSTEM, this machine's)
                   ssh takes further options from NIX_SSHOPTS, as Nix does
END
}

# builder_option "$@": takes one of these; like common_option.
builder_option() {
  # shellcheck disable=SC2034
  taken=2
  case $1 in
    --host | --user | --key | --system) needs_value "$@" ;;
  esac
  case $1 in
    --host) builder_host=$2 ;;
    --user) builder_user=$2 ;;
    --key) builder_key=$2 ;;
    --system) builder_system=$2 ;;
    *) common_option "$@" ;;
  esac
}

# A line of a machines file for the builder that the options name.
builder_line() {
  local uri=$builder_host
  [[ $uri == *@* ]] || uri=$builder_user@$uri
  [[ $uri == *://* ]] || uri=ssh-ng://$uri
  printf '%s %s %s 1 1' "$uri" "${builder_system:-$(setting system)}" \
    "${builder_key:--}"
}

# The builders, a line each: URI, systems, key, jobs, speed, features,
# mandatory features, host key.
list_builders() {
  if [[ -n $builder_host ]]; then
    builder_line
  else
    read_machines "$(setting builders)"
  fi
}

# read_machines TEXT: as Nix reads its setting `builders`.
read_machines() {
  local line newline=$'\n'
  while IFS= read -r line; do
    line=${line%%#*}
    line=${line#"${line%%[![:space:]]*}"}
    case $line in
      '') ;;
      @*)
        line=${line#@}
        line=${line%"${line##*[![:space:]]}"}
        # A file that is not there is as good as an empty one.
        [[ ! -r $line ]] || read_machines "$(<"$line")"
        ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <<<"${1//;/$newline}"
}

# read_builder LINE: into $uri $systems $key $jobs $speed $features $hostkey.
read_builder() {
  # shellcheck disable=SC2034  # the callers use them
  read -r uri systems key jobs speed features _ hostkey _ <<<"$1"
  [[ $uri == *://* ]] || uri=ssh://$uri
  if [[ ${systems:--} == - ]]; then systems=$(setting system); fi
  if [[ ${key:--} == - ]]; then key=''; fi
  if [[ ${features:--} == - ]]; then features=''; fi
  if [[ ${hostkey:--} == - ]]; then hostkey=''; fi
  systems=${systems//,/ }
  features=${features//,/ }
  # shellcheck disable=SC2034
  jobs=${jobs:-1} speed=${speed:-1}
}

# ssh_place URI: into $login ("user@host") and $port, which may be empty.
ssh_place() {
  login=${1#*://}
  login=${login%%[/?]*}
  port=''
  # Colons without brackets belong to an address.
  if [[ $login =~ ^([^:]+|.*\]):([0-9]+)$ ]]; then
    login=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]}
  fi
}

# Nobody is there to answer a question.
ssh_options() {
  printf '%s -oBatchMode=yes -oConnectTimeout=%d' "${NIX_SSHOPTS-}" "$limit"
}

# look_at_builder LINE: whether Nix could build there: true, false, or null if
# this cannot be told, in $builder_usable.
# shellcheck disable=SC2034  # the callers use it
look_at_builder() {
  local uri systems key jobs speed features hostkey login port check url
  local code=0
  builder_usable=null
  read_builder "$1"
  ssh_place "$uri"
  check="builder $login"
  if [[ $uri != ssh://* && $uri != ssh-ng://* ]]; then
    warn "$check" "is not reached by ssh, and was not looked at"
    return 0
  fi
  url=$uri
  if [[ -n $key ]]; then
    check_key_file "key $key" "$key" \
      "offload-setup makes one; or is the path in nix.conf's builders wrong?" ||
      code=$?
    if ((code == 1)); then builder_usable=false; fi
    if ((code)); then return 0; fi
    url=$(with_parameter "$url" ssh-key "$key")
  fi
  if [[ -n $hostkey ]]; then
    url=$(with_parameter "$url" base64-ssh-public-host-key "$hostkey")
  fi
  if NIX_SSHOPTS=$(ssh_options) ping_store "$url" >/dev/null \
    2>"$scratch/ping"; then
    builder_usable=true
    ok "$check" "answers; builds for ${systems// /, }, $jobs at once"
  else
    builder_usable=false
    builder_trouble "$check" "$login" "$port" "$key" "$(<"$scratch/ping")"
  fi
}

# with_parameter URL NAME VALUE
with_parameter() {
  local joint='?'
  if [[ $1 == *\?* ]]; then joint='&'; fi
  printf '%s%s%s=%s' "$1" "$joint" "$2" "$3"
}

# builder_trouble CHECK LOGIN PORT KEY SAID: why Nix cannot use it; ssh tells
# more than Nix does.
builder_trouble() {
  local check=$1 login=$2 port=$3 key=$4 said options
  read -r -a options <<<"$(ssh_options)"
  if [[ -n $key ]]; then options+=(-i "$key" -oIdentitiesOnly=yes); fi
  if [[ -n $port ]]; then options+=(-p "$port"); fi
  said=$(within "$((limit + 5))" ssh "${options[@]}" "$login" \
    nix-store --version 2>&1 </dev/null || true)
  ssh_trouble "$check" "$login" "$said" ||
    bad "$check" "ssh gets in, but Nix does not: $5" \
      "is Nix installed there and on the PATH of that user (a forced command\
 has to run nix-daemon --stdio for ssh-ng://, nix-store --serve --write for\
 ssh://), and does nix-daemon run there?"
}

# ssh_trouble CHECK LOGIN SAID: what ssh's words mean. Returns 1 if they say
# nothing of ssh.
ssh_trouble() {
  local check=$1 login=$2 said=$3
  case $said in
    *'Could not resolve'* | *'not known'* | *'nodename nor servname'*)
      away "$check" "the name is not known here: $said" \
        "is this machine in the builder's network (tailscale status, VPN)?\
 else use the address"
      ;;
    *'Connection refused'*)
      away "$check" "no SSH server: $said" \
        "on the builder: systemctl status sshd; services.openssh.enable; is\
 port 22 open in its firewall?"
      ;;
    *'timed out'* | *'No route to host'* | *'Network is unreachable'* | \
      *'Host is down'*)
      away "$check" "does not answer: $said" \
        "is it on? a firewall that drops port 22 looks like this, too"
      ;;
    *'Host key verification failed'* | *'HOST IDENTIFICATION HAS CHANGED'* | \
      *'No '*' host key is known'*)
      bad "$check" "its host key is not the known one, or not known: $said" \
        "offload-setup --host ${login#*@} shows and records it; the daemon's\
 ssh goes by root's ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts"
      ;;
    *'UNPROTECTED PRIVATE KEY'*)
      bad "$check" "the key is open to others: ssh does not use it" "chmod 600"
      ;;
    *'Permission denied'* | *'Too many authentication failures'*)
      bad "$check" "the key is not accepted: $said" \
        "on the builder: is the public key in the authorized_keys of\
 ${login%@*} (services.nix-builder.builder.authorizedKeys), does id\
 ${login%@*} know that user? journalctl -u sshd -n 20 says why it refused"
      ;;
    *'account is currently not available'* | *nologin*)
      bad "$check" "the user has no shell: $said" \
        "Nix needs one there: users.users.${login%@*}.useDefaultShell = true;\
 restrict it by a forced command instead"
      ;;
    *'command not found'* | *'not found'*)
      bad "$check" "no nix-store there: $said" \
        "is Nix on the PATH of a login without a terminal? the URI may say\
 ?remote-program=/nix/var/nix/profiles/default/bin/nix-daemon"
      ;;
    *) return 1 ;;
  esac
}

# --- Trying it ---------------------------------------------------------------

# A derivation that nobody has built before and that needs nothing.
trial_expression() {
  cat <<'END'
{ system, salt }: derivation {
  name = "offload-trial";
  inherit system salt;
  builder = "/bin/sh";
  args = [ "-c" "echo $salt > $out" ];
}
END
}

# trial SYSTEM OPTION...: builds it; what Nix says is in $scratch/trial, its
# path in $trial_path.
trial() {
  local system=$1 salt
  shift
  salt="$(date +%s)-$$-$RANDOM"
  trial_path=''
  trial_path=$(NIX_SSHOPTS=$(ssh_options) \
    within "$((limit * 12))" nix-build --no-out-link "$@" \
    --argstr system "$system" --argstr salt "$salt" -E "$(trial_expression)" \
    2>"$scratch/trial") || return 1
  # Local or copied back: what counts is that its bytes are here.
  [[ $(<"$trial_path") == "$salt" ]]
}

# trial_trouble CHECK: what it means that Nix did not build.
trial_trouble() {
  local said
  said=$(grep -v -e '^this derivation' -e '^  /' -e '^copying' \
    "$scratch/trial" | tail -n 8 || true)
  case $said in
    *'not privileged to build'* | *'not a trusted user'*)
      bad "$1" "the builder does not trust this user: $said" \
        "on the builder: nix.settings.trusted-users = [ \"$builder_user\" ]\
 (nix.conf: trusted-users = root $builder_user), and restart nix-daemon"
      ;;
    *'restricted setting'*)
      bad "$1" "the daemon does not let you choose builders: $said" \
        "run this as root, or put yourself into trusted-users"
      ;;
    *'start SSH connection'* | *'cannot open connection'* | \
      *'cannot build on'*)
      bad "$1" "$said" \
        "offload-status looks at the connection step by step; the daemon does\
 not have your NIX_SSHOPTS, agent or ~/.ssh: test as root"
      ;;
    *'Failed to find a machine'* | *'unable to start any build'* | \
      *'is required to build'*)
      bad "$1" "no machine that Nix may use builds this: $said" \
        "max-jobs is 0 or the system is foreign, and no builder with this\
 system and these features answers: see offload-status. For now:\
 sudo nixos-rebuild switch --option max-jobs auto --option builders ''"
      ;;
    *'Exec format error'*)
      bad "$1" "the builder cannot run programs of that system: $said" \
        "take the system out of its list, or give it an emulator\
 (boot.binfmt.emulatedSystems)"
      ;;
    *) bad "$1" "$said" "nix-build -v shows how Nix chooses" ;;
  esac
}
