#!/usr/bin/env bash
# The figures of the README, measured here and now. Prints Markdown tables;
# passes or fails nothing. Leave the machine alone meanwhile.
#
#   tests/bench/run.sh [--only hook|uploads|idle]
set -euo pipefail

source_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=tests/support/packages.sh
. "$source_dir/tests/support/packages.sh"

if [[ -z ${NIXQ_BIN:-} ]]; then
  install_missing "${build_packages[@]}" "${test_packages[@]}" >&2
  cd "$source_dir"
  launcher=$(compiler_launcher)
  [[ -e build/release/build.ninja ]] || cmake --preset release \
    -DNIXQ_BUILD_TESTS=OFF ${launcher:+"$launcher"} >&2
  cmake --build build/release --target queued-hook queued queuectl >&2
  export NIXQ_BIN=$source_dir/build/release/bin
fi
export NIXQ_SOURCE=$source_dir PYTHONDONTWRITEBYTECODE=1
exec python3 "$source_dir/tests/bench/report.py" "$@"
