# bash completion for queuectl(1)

# The options of a command beside those that all have.
_queuectl_options() {
  case $1 in
    list) echo '--state --target --older-than --limit' ;;
    add) echo '--closure --all-local' ;;
    retry) echo '--parked --target' ;;
    forget) echo '--parked --target --dry-run' ;;
    prune) echo '--older-than --dry-run' ;;
    wait) echo '--timeout' ;;
    '') echo '--version' ;;
  esac
}

# The names of the targets in the queue that the command line so far means.
_queuectl_targets() {
  local -a options=()
  local i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${COMP_WORDS[i]} in
      --config | --state-dir)
        options+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}")
        ;;
    esac
  done
  "${COMP_WORDS[0]}" status --json "${options[@]}" 2>/dev/null |
    sed -n 's/^ *"name": "\([A-Za-z0-9._-]*\)",\{0,1\}$/\1/p'
}

_queuectl() {
  local word=${COMP_WORDS[COMP_CWORD]}
  local before=${COMP_WORDS[COMP_CWORD - 1]}
  local command='' i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${COMP_WORDS[i]} in
      --config | --state-dir) ((++i)) ;;
      -*) ;;
      *)
        command=${COMP_WORDS[i]}
        break
        ;;
    esac
  done
  case $before in
    --config)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return
      ;;
    --state-dir)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -d -- "$word")
      return
      ;;
    --state)
      mapfile -t COMPREPLY < <(compgen -W 'queued sending done parked' \
        -- "$word")
      return
      ;;
    --target)
      mapfile -t COMPREPLY < <(compgen -W "$(_queuectl_targets)" -- "$word")
      return
      ;;
    --older-than | --timeout | --limit) return ;;
  esac
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "--config --state-dir --json --help
      $(_queuectl_options "$command")" -- "$word")
    return
  fi
  case $command in
    '')
      mapfile -t COMPREPLY < <(compgen -W 'status list show add retry forget
        pause resume prune wait check version' -- "$word")
      ;;
    pause | resume)
      mapfile -t COMPREPLY < <(compgen -W "$(_queuectl_targets)" -- "$word")
      ;;
    show | add | retry | forget | wait)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "${word:-/nix/store/}")
      ;;
  esac
}
complete -F _queuectl queuectl
