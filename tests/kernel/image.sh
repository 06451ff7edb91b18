#!/usr/bin/env bash
# Finds the kernel that belongs to the newest headers installed, or fetches it. It is never installed: the machine must
# not boot from it one day because a test needed it.
#
#   tests/kernel/image.sh           prints, a line each: its release, the file to boot, the module of the e1000 network card
#   tests/kernel/image.sh --fetch   downloads the distribution's package and takes these two files out of it
#
# What is fetched is kept under target/tools/kernel. Exit code 77: that kernel cannot be had here, for the reason printed.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cannot() { printf 'kernel: %s\n' "$*" >&2; exit 77; }

[ "$(uname -m)" = x86_64 ] || cannot "the virtual machine is an x86_64 one, this is $(uname -m)"
release=$("$root/tests/kmod/build.sh" --headers)
[ "$release" = "$("$root/tests/kmod/build.sh" --release)" ] ||
  cannot "kernel $release has no ABI number, so no bundle can be named for it (docs/decisions/0009-tests-use-the-real-thing.md)"
kept=$root/target/tools/kernel/$release

# The two files under a directory that is laid out as the root of a system, if both are there.
look() {
  local vmlinuz=$1/boot/vmlinuz-$release module
  module=$(find "$1/lib/modules/$release/kernel/drivers/net/ethernet/intel/e1000" -name 'e1000.ko*' 2>/dev/null | head -n 1 || true)
  [ -r "$vmlinuz" ] && [ -n "$module" ] || return 1
  printf '%s\n%s\n%s\n' "$release" "$vmlinuz" "$module"
}

fetch() {
  local package version packages=("linux-image-$release")
  for command in apt-get dpkg-deb dpkg-query; do
    command -v "$command" >/dev/null || cannot "this is neither Debian nor Ubuntu"
  done
  # Ubuntu has the modules apart.
  case "$release" in *-generic) packages+=("linux-modules-$release") ;; esac
  mkdir -p "$root/target/tools/kernel"
  work=$(mktemp -d "$root/target/tools/kernel/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # The image has to be of the very build that the headers are of.
  version=$(dpkg-query -W -f '${Version}' "linux-headers-$release" 2>/dev/null) ||
    cannot "the headers of kernel $release do not come from a package, so its image cannot be found"
  for package in "${packages[@]}"; do
    (cd "$work" && apt-get -qq -o Acquire::Retries=5 -o APT::Sandbox::User=root download "$package=$version") >&2 || cannot \
      "the package $package=$version cannot be downloaded; if the mirror has a newer kernel, upgrade the kernel headers"
  done
  mkdir "$work/root"
  for package in "$work"/*.deb; do
    # On systems with merged /usr the modules may be packed below it.
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work/root" --no-same-owner --wildcards --no-anchored \
      --transform 's,^\./usr/lib/,./lib/,' 'vmlinuz-*' 'e1000.ko*' 2>/dev/null || true
  done
  rm -rf "$kept"
  mv "$work/root" "$kept"
}

case "${1:-}" in
  '') look '' || look "$kept" || cannot "the image of kernel $release is not here; run: tests/setup.sh kernel" ;;
  --fetch) look '' >/dev/null || look "$kept" >/dev/null || { fetch && look "$kept" >/dev/null; } ||
    cannot "the package of kernel $release does not hold the image and the e1000 module" ;;
  *) echo "usage: tests/kernel/image.sh [--fetch]" >&2; exit 2 ;;
esac
