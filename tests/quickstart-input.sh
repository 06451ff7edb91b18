#!/usr/bin/env bash
# Makes real input for a server to try out: a signing key, and two live patches that are compiled for the newest kernel
# whose headers are installed, signed with that key and packed under their proper names. What is there is kept.
#
#   tests/quickstart-input.sh DIR
#
# Makes DIR/keys/{key,cert}.pem and DIR/bundles/livepatch-KERNEL-{106.1,107.1}-ARCH.tar.bz2; prints, a line each, the
# certificate, the two bundles (lower version first), the kernel and the architecture.
# LIVEPATCH_BIN_DIR says where livepatch-server is; target/debug if it is not set.
set -euo pipefail
# A failure in $(...) counts as well.
shopt -s inherit_errexit

[ $# -eq 1 ] || { echo "usage: tests/quickstart-input.sh DIR" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
server=${LIVEPATCH_BIN_DIR:-$here/../target/debug}/livepatch-server
[ -x "$server" ] || { echo "quickstart-input: $server is not there; build it first: cargo build --bins" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)

"$here/kmod/keys.sh" "$dir/keys" 4096 "Live Patch Quickstart Signing" >/dev/null
kernel=$("$here/kmod/build.sh" --kernel)
case "$(uname -m)" in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) echo "quickstart-input: there are no live patches for the architecture $(uname -m)" >&2; exit 1 ;;
esac

# pack VERSION FIX...: makes the bundle of that patch, unless it is there, and prints its path.
pack() {
  local version=$1 bundle module work fix fixes=()
  shift
  bundle=$dir/bundles/livepatch-$kernel-$version-$arch.tar.bz2
  if [ ! -s "$bundle" ]; then
    for fix in "$@"; do fixes+=(--fix "$fix"); done
    module=lkp_Ubuntu_${kernel//[^A-Za-z0-9]/_}_${version%%.*}
    work=$(mktemp -d)
    "$here/kmod/build.sh" "$work" "$module" "patched by $version" >/dev/null
    "$server" bundle pack --ko "$work/$module.ko" --kernel "$kernel" --version "$version" --arch "$arch" \
      --key "$dir/keys/key.pem" --cert "$dir/keys/cert.pem" "${fixes[@]}" -o "$dir/bundles" >/dev/null
    rm -rf "$work"
  fi
  printf '%s\n' "$bundle"
}

# Patches are cumulative: the later one mends what the earlier one mended, and more.
readonly FIRST='CVE-2024-1086=use after free in netfilter' SECOND='CVE-2024-26581=missed end of interval in netfilter'
first=$(pack 106.1 "$FIRST")
second=$(pack 107.1 "$FIRST" "$SECOND")
printf '%s\n' "$dir/keys/cert.pem" "$first" "$second" "$kernel" "$arch"
