#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the named parts need and that are missing: build, kernel, demo, test.
# Uses sudo when not root. Does nothing, and needs no network, when all is there. `lists` has apt's lists renewed.
set -euo pipefail

declare -A packages=(
  [build]="gcc libc6-dev pkg-config libseccomp-dev git make ca-certificates"
  [kernel]="flex bison bc libelf-dev patch make gcc binutils xz-utils tar lz4 cpio ccache"
  [demo]="qemu-system-x86 busybox-static docker-registry skopeo iproute2 zstd xz-utils"
  [test]="runc crun umoci strace cryptsetup-bin erofs-utils"
)

[ $# -gt 0 ] || set -- build
missing=()
renew=
for part in "$@"; do
  [ "$part" != lists ] || { renew=yes; continue; }
  [ -n "${packages[$part]:-}" ] || { echo "setup: no part is called '$part' (build, kernel, demo, test, lists)" >&2; exit 2; }
  for package in ${packages[$part]}; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
done
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/Cargo.toml")
if ! command -v cargo >/dev/null; then
  if [ -x "$HOME/.cargo/bin/cargo" ]; then
    echo "setup: cargo is in $HOME/.cargo/bin but not in PATH; run: . \"\$HOME/.cargo/env\"" >&2
  else
    echo "setup: cargo is missing; install Rust $wanted or newer (https://rustup.rs) and run this again" >&2
  fi
  exit 1
fi
found=$(cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
  echo "setup: $(command -v cargo) is version $found, and this needs $wanted or newer: run \`rustup update\`, or" \
    "install Rust from https://rustup.rs (a distribution's own is often older)" >&2
  exit 1
fi
[ -n "$renew" ] || [ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: not root and no sudo; as root run: apt-get update && apt-get install ${missing[*]}" >&2; exit 1; }
  sudo=(sudo env DEBIAN_FRONTEND=noninteractive)
fi
echo "setup: ${renew:+renewing the package lists; }${missing[*]:+installing ${missing[*]}}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install_all() {
  "${sudo[@]}" apt-get update -qq >"$log" 2>&1 || return
  [ ${#missing[@]} -eq 0 ] ||
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1
}
# A mirror may fail once.
install_all </dev/null || install_all </dev/null || {
  cat "$log" >&2
  echo "setup: apt-get could not install: ${missing[*]}; it needs a network and the distribution's package lists" >&2
  exit 1
}
