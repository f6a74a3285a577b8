# shellcheck shell=bash
# What a command found out: a line for people, a document for programs, and an
# exit code for both. For bash 3.2, which macOS has, and later.
#
#   ok CHECK TEXT            it is as it should be
#   warn CHECK TEXT [HINT]   it works, but not as well as it could
#   bad CHECK TEXT [HINT]    it does not work
#   away CHECK TEXT [HINT]   another machine does not answer
#   fact NAME JSON           for programs alone
#   finish                   prints what is left to print, and exits
#
# HINT says what to do next. The words are those of `queuectl check`, which
# has no "away".

# shellcheck disable=SC2034  # others use them
EXIT_OK=0 EXIT_FAILED=1 EXIT_USAGE=2 EXIT_MISSING=3 EXIT_AWAY=4

# How long anything may take that waits for another machine.
limit=${NIXQ_LIMIT:-10}
json=no
program=${0##*/}

scratch=''
taken=1
_findings=''
_facts=''
_exit=$EXIT_OK

# For the end of every --help.
common_help() {
  cat <<'END'
  --limit SECONDS  how long another machine may take to answer (10)
  --json           print JSON, for programs
  -h, --help       print this and exit

Exit status:
  0  all is well; there may be warnings
  1  something does not work; each "failed" says what, and what to do next
  2  the command line is wrong
  3  a program is missing that this needs
  4  nothing is wrong but that another machine does not answer ("away")
END
}

# common_option "$@": takes what every command takes; the number of words is
# in $taken.
common_option() {
  taken=1
  case $1 in
    --json) json=yes ;;
    --limit)
      needs_value "$@"
      [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || usage "--limit takes seconds, not '$2'"
      limit=$2
      taken=2
      ;;
    -h | --help)
      help
      exit "$EXIT_OK"
      ;;
    -*) usage "there is no option $1" ;;
    *) usage "'$1' is too much" ;;
  esac
}

needs_value() {
  (($# > 1)) || usage "$1 needs a value"
}

usage() {
  printf '%s: %s; see %s --help\n' "$program" "$1" "$program" >&2
  exit "$EXIT_USAGE"
}

# stop CODE TEXT: nothing can be found out, or go on.
stop() {
  printf '%s: %s\n' "$program" "$2" >&2
  exit "$1"
}

has() { command -v "$1" >/dev/null 2>&1; }

# need PROGRAM WHERE-IT-COMES-FROM
need() {
  has "$1" || stop "$EXIT_MISSING" "$1 is not on the PATH; $2"
}

ok() { _find ok "$1" "$2" ''; }
warn() { _find warning "$1" "$2" "${3-}"; }

bad() {
  _find failed "$1" "$2" "${3-}"
  _exit=$EXIT_FAILED
}

away() {
  _find away "$1" "$2" "${3-}"
  if ((_exit == EXIT_OK)); then _exit=$EXIT_AWAY; fi
}

# Whether nothing has failed so far.
all_well() { ((_exit == EXIT_OK)); }

_find() {
  local text
  text=$(one_line "$3")
  if [[ $json == yes ]]; then
    _findings+=${_findings:+,}
    _findings+="{\"check\":$(json_string "$2"),\"level\":\"$1\","
    _findings+="\"text\":$(json_string "$text"),"
    _findings+="\"hint\":$(json_string "$4")}"
  else
    printf '%-8s %s: %s\n' "$1" "$2" "$text"
    [[ -z $4 ]] || printf '         %s\n' "$4"
  fi
}

fact() { _facts+=",$(json_string "$1"):$2"; }

# say TEXT...: for people, beside the findings.
say() { [[ $json == yes ]] || printf '%s\n' "$@"; }

finish() {
  if [[ $json == yes ]]; then
    printf '{"command":%s,"exit":%d,"findings":[%s]%s}\n' \
      "$(json_string "$program")" "$_exit" "$_findings" "$_facts"
  fi
  exit "$_exit"
}

json_string() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  printf '"%s"' "$(printf '%s' "$text" | tr -d '\000-\037')"
}

# A number; what is none stays text.
json_number() {
  if [[ $1 =~ ^(0|[1-9][0-9]*)(\.[0-9]+)?$ ]]; then
    printf '%s' "$1"
  else
    json_string "$1"
  fi
}

json_list() {
  local word list=''
  for word; do list+="${list:+,}$(json_string "$word")"; done
  printf '[%s]' "$list"
}

json_bool() { if "$@"; then printf true; else printf false; fi; }

# What a program said, on one line and not for ever.
one_line() {
  local text
  text=$(printf '%s' "$1" | tr '\n\t' '; ' | tr -d '\000-\037' |
    sed -e 's/;[; ]*/; /g' -e 's/[; ]*$//')
  if ((${#text} > 400)); then text="${text:0:400}..."; fi
  printf '%s' "$text"
}

# within SECONDS PROGRAM...: runs it, and ends it when the time is over (then
# the exit code is 124, or 142 where only perl can).
within() {
  local seconds=$1
  shift
  if has timeout; then
    timeout -k 2 "$seconds" "$@"
  elif has gtimeout; then
    gtimeout -k 2 "$seconds" "$@"
  elif has perl; then
    perl -e 'alarm shift; exec { $ARGV[0] } @ARGV or exit 127' "$seconds" "$@"
  else
    "$@"
  fi
}

# A directory that is gone when the command is.
scratch_directory() {
  if [[ -z $scratch ]]; then
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/$program.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
  fi
}
