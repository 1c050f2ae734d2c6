#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the named parts need and that are missing: build, kernel, demo, test.
# Uses sudo when not root. Does nothing, and needs no network, when all is there.
set -euo pipefail

declare -A packages=(
  [build]="gcc libc6-dev pkg-config libseccomp-dev git make"
  [kernel]="flex bison bc libelf-dev patch make gcc binutils xz-utils tar lz4 cpio ccache"
  [demo]="qemu-system-x86 busybox-static docker-registry skopeo iproute2 zstd xz-utils"
  [test]="runc crun umoci strace cryptsetup-bin erofs-utils"
)

[ $# -gt 0 ] || set -- build
missing=()
for part in "$@"; do
  [ -n "${packages[$part]:-}" ] || { echo "setup: no part is called '$part' (build, kernel, demo, test)" >&2; exit 2; }
  for package in ${packages[$part]}; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
done
if ! command -v cargo >/dev/null; then
  echo "setup: cargo is missing; install Rust 1.95 or newer (https://rustup.rs) and run this again" >&2
  exit 1
fi
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: not root and no sudo; install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install_all() {
  "${sudo[@]}" apt-get update -qq >"$log" 2>&1 &&
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1
}
# A mirror may fail once.
install_all </dev/null || install_all </dev/null || {
  cat "$log" >&2
  echo "setup: apt-get could not install: ${missing[*]}" >&2
  exit 1
}
