# shellcheck shell=bash
# A builder's store, mounted here over NFS.
# shellcheck source=nixos-module/scripts/lib/builder.sh
. "${BASH_SOURCE[0]%/*}/builder.sh"

mount_point=${OFFLOAD_MOUNT_POINT:-/nix/store-remote}

is_mounted() { mount | grep -qF " on $mount_point "; }

# A server that is gone lets whoever looks at its files hang.
mount_answers() { within "$limit" ls "$mount_point" >/dev/null 2>&1; }

# The host that the options name, else that of the first builder.
mount_host() {
  local line uri systems key jobs speed features hostkey login port
  line=$(list_builders | head -n 1)
  [[ -n $line ]] || return 0
  read_builder "$line"
  ssh_place "$uri"
  printf '%s' "${login#*@}"
}

needs_root() {
  ((EUID == 0)) || stop "$EXIT_FAILED" "only root may do this: sudo $program"
}
