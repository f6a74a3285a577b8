#!/usr/bin/env bash
# Writes the files that the Dockerfile copies into the image:
#
#   ./render.sh && docker build --tag ci-runner .
#   docker run --rm \
#     -v /etc/nix/builder-key:/run/secrets/nix-builder:ro ci-runner
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
target=${1:-$here/etc}

text() {
  nix --extra-experimental-features nix-command eval --raw \
    --file "$here/files.nix" "$1"
}

mkdir -p "$target"
text nixConf >"$target/nix.conf"
text machines >"$target/machines"
text sshConfig >"$target/ssh_config"
echo "$target: nix.conf machines ssh_config"
