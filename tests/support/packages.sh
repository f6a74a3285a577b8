# shellcheck shell=bash
# Sourced by the scripts that install what is missing.

# What it takes to build the programs, and to run them on a real Nix.
# shellcheck disable=SC2034
build_packages=(
  cmake ninja-build g++ pkg-config
  libabsl-dev libsqlite3-dev libsodium-dev libssl-dev libcurl4-openssl-dev
  libzstd-dev liblzma-dev libtomlplusplus-dev libcli11-dev nlohmann-json3-dev
)
# shellcheck disable=SC2034
test_packages=(
  libgtest-dev libgmock-dev nix-bin nginx-light openssh-server openssh-client
  sqlite3 python3 zstd xz-utils curl procps strace git openssl shellcheck
  systemd debootstrap systemd-container iproute2 python3-yaml man-db
  e2fsprogs ca-certificates
)

# install_missing PACKAGE...: on Debian and alike, installs those that are
# missing; apt is not started at all when there are none. Elsewhere it leaves
# everything to the person, and to the error of what is missing.
install_missing() {
  command -v dpkg-query >/dev/null || return 0
  local package missing=()
  for package; do
    # The last word is "installed" also for virtual packages' providers.
    dpkg-query --show --showformat '${db:Status-Status}\n' "$package" \
      2>/dev/null | grep -qx installed || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  local root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || {
      echo "missing: ${missing[*]}; become root or install them" >&2
      return 1
    }
    root=(sudo)
  fi
  echo "installing ${missing[*]}"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install --yes --no-install-recommends "${missing[@]}"
}

# ccache is used where it is, and never needed.
compiler_launcher() {
  if command -v ccache >/dev/null; then
    echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
  fi
}
