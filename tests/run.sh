#!/usr/bin/env bash
# Installs what is missing, builds everything, runs all tests, and says which
# of them could not be run here.
#
#   tests/run.sh [CTEST OPTION...]      for example: tests/run.sh -R interop
#   NIXQ_PRESET=asan tests/run.sh       another of CMakePresets.json
set -euo pipefail

source_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
preset=${NIXQ_PRESET:-release}
# shellcheck source=tests/support/packages.sh
. "$source_dir/tests/support/packages.sh"

install_missing "${build_packages[@]}" "${test_packages[@]}"

cd "$source_dir"
build_dir=$source_dir/build/$preset
launcher=$(compiler_launcher)
cmake --preset "$preset" -DNIXQ_BUILD_TESTS=ON -DNIXQ_WERROR=ON \
  -DNIXQ_PRECOMPILE=ON \
  ${launcher:+"$launcher"}
cmake --build "$build_dir"

# Sanitizers and address space layouts with very many random bits do not
# always agree; whether this kernel lets us do without is tried first.
run=()
if [[ $preset == asan || $preset == tsan ]] &&
   setarch "$(uname -m)" --addr-no-randomize true 2>/dev/null; then
  run=(setarch "$(uname -m)" --addr-no-randomize)
fi
status=0
"${run[@]}" ctest --test-dir "$build_dir" --parallel 2 --output-on-failure \
  --no-tests=error "$@" || status=$?

# What a test left out is said once more, since ctest calls it passed.
left_out=$(python3 tests/support/not_run.py "$build_dir")
if [[ -n $left_out ]]; then
  printf '\nNot run here:\n%s\n' "$left_out"
fi
exit "$status"
