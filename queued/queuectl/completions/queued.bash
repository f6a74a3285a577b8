# bash completion for queued(8)
_queued() {
  local word=${COMP_WORDS[COMP_CWORD]}
  local before=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  case $before in
    --config)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      ;;
    --state-dir)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -d -- "$word")
      ;;
    --log-level)
      mapfile -t COMPREPLY < <(compgen -W 'debug info warning error' -- "$word")
      ;;
    *)
      mapfile -t COMPREPLY < <(compgen -W '--config --state-dir --log-level
        --check-config --version --help' -- "$word")
      ;;
  esac
}
complete -F _queued queued
