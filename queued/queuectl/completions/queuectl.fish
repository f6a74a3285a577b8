# fish completion for queuectl(1)
function __queuectl_targets
    queuectl status --json 2>/dev/null |
        string replace -rf '^ *"name": "([A-Za-z0-9._-]*)",?$' '$1'
end

set -l commands status list show add retry forget pause resume prune wait \
    check version

complete -c queuectl -f
complete -c queuectl -l config -r -F -d 'Configuration file of the daemon'
complete -c queuectl -l state-dir -x -a '(__fish_complete_directories)' \
    -d 'Directory of the queue'
complete -c queuectl -l json -d 'Print JSON'
complete -c queuectl -s h -l help -d 'Print the options'

set -l none "not __fish_seen_subcommand_from $commands"
complete -c queuectl -n $none -l version -d 'Print the version'
complete -c queuectl -n $none -a status \
    -d 'Targets, counts, and what is being sent'
complete -c queuectl -n $none -a list -d 'Jobs, those open oldest first'
complete -c queuectl -n $none -a show -d 'Everything about a path'
complete -c queuectl -n $none -a add \
    -d 'Enqueue paths that were not built just now'
complete -c queuectl -n $none -a retry \
    -d 'Try again now what waits or is parked'
complete -c queuectl -n $none -a forget \
    -d 'Remove jobs from the queue, for good'
complete -c queuectl -n $none -a pause -d 'Send nothing to a target'
complete -c queuectl -n $none -a resume -d 'Send to a target again'
complete -c queuectl -n $none -a prune -d 'Remove roots that are too old'
complete -c queuectl -n $none -a wait -d 'Wait until all is sent'
complete -c queuectl -n $none -a check -d 'Look for what is wrong'
complete -c queuectl -n $none -a version \
    -d 'Versions of this program and the daemon'

set -l seen __fish_seen_subcommand_from
complete -c queuectl -n "$seen show add retry forget wait" -F
complete -c queuectl -n "$seen pause resume" -a '(__queuectl_targets)'

complete -c queuectl -n "$seen list" -l state -x \
    -a 'queued sending done parked' -d 'Only those in this state'
complete -c queuectl -n "$seen list retry forget" -l target -x \
    -a '(__queuectl_targets)' -d 'Only for this target'
complete -c queuectl -n "$seen list prune" -l older-than -x \
    -d 'Only what is older than a duration'
complete -c queuectl -n "$seen list" -l limit -x -d 'At most so many'
complete -c queuectl -n "$seen add" -l closure \
    -d 'And all that they reference'
complete -c queuectl -n "$seen add" -l all-local \
    -d 'Everything that was built on this machine'
complete -c queuectl -n "$seen retry forget" -l parked \
    -d 'All that are parked'
complete -c queuectl -n "$seen forget prune" -l dry-run \
    -d 'Only say what would go'
complete -c queuectl -n "$seen wait" -l timeout -x -d 'At most so long'
