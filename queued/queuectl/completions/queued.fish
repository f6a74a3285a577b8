# fish completion for queued(8)
complete -c queued -f
complete -c queued -l config -r -F -d 'Configuration file'
complete -c queued -l state-dir -x -a '(__fish_complete_directories)' \
    -d 'Directory of the queue'
complete -c queued -l log-level -x -a 'debug info warning error' \
    -d 'What to log'
complete -c queued -l check-config \
    -d 'Only say what is wrong with the configuration'
complete -c queued -l version -d 'Print the version'
complete -c queued -s h -l help -d 'Print the options'
