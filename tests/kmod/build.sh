#!/usr/bin/env bash
# Builds one unsigned live patch for the newest kernel whose headers are installed.
#
#   build.sh OUTDIR NAME TEXT   builds OUTDIR/NAME.ko, which makes /proc/cmdline show TEXT;
#                               prints the path of the module, then the kernel release it is for
#   build.sh --release          prints that kernel release only
#   build.sh --kernel           prints the kernel version as bundle names write it, e.g. 6.1.0-56.1-amd64
#
# Needs: make, gcc and kernel headers (Debian: linux-headers-amd64, Ubuntu: linux-headers-generic).
# Runs may be parallel: each works in a directory of its own.
set -euo pipefail

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

newest_release() {
  local found
  found=$(find /usr/src -maxdepth 1 \( -name 'linux-headers-*-amd64' -o -name 'linux-headers-*-generic' \) -printf '%f\n' |
    sed 's/^linux-headers-//' | sort -V | tail -n 1)
  [ -n "$found" ] || fail "no kernel headers under /usr/src; install linux-headers-amd64 (Debian) or linux-headers-generic (Ubuntu)"
  printf '%s\n' "$found"
}

# The upload number stands in the package's version on Ubuntu (6.8.0-57.59). Debian's numbering has none: 1 is taken.
kernel_version() {
  local release=$1 base_abi flavour upload=
  flavour=${release##*-}
  base_abi=${release%-*}
  if [ "$flavour" = generic ] && command -v dpkg-query >/dev/null; then
    upload=$(dpkg-query -W -f '${Version}' "linux-headers-$release" 2>/dev/null || true)
    case "$upload" in
      "$base_abi".*) upload=${upload#"$base_abi".} ;;
      *) upload= ;;
    esac
  fi
  printf '%s.%s-%s\n' "$base_abi" "${upload:-1}" "$flavour"
}

release=$(newest_release)
case "${1:-}" in
  --release) printf '%s\n' "$release"; exit 0 ;;
  --kernel) kernel_version "$release"; exit 0 ;;
esac
[ $# -eq 3 ] || fail "usage: build.sh OUTDIR NAME TEXT | --release | --kernel"
outdir=$1 name=$2 text=$3
# Both end up in a makefile and in C source: only harmless characters.
[[ $name =~ ^[A-Za-z_][A-Za-z0-9_]{0,54}$ ]] || fail "module name '$name': letters, digits and _ expected, at most 55"
[[ $text =~ ^[A-Za-z0-9\ ._:=-]{1,100}$ ]] || fail "text '$text': letters, digits, spaces and . _ : = - expected, at most 100"

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$outdir"
outdir=$(cd "$outdir" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/livepatch-kmod.XXXXXXXX")
trap 'rm -rf "$work"' EXIT

{ printf '#define LIVEPATCH_TEXT "%s"\n' "$text"; cat "$here/livepatch.c"; } >"$work/$name.c"
printf 'obj-m := %s.o\n' "$name" >"$work/Makefile"
if ! make -C "/usr/src/linux-headers-$release" "M=$work" modules >"$work/log" 2>&1; then
  cat "$work/log" >&2
  fail "the module did not build for $release"
fi
# In two steps, so that a half-written module is never seen under its name.
cp "$work/$name.ko" "$outdir/.$name.ko.$$"
mv "$outdir/.$name.ko.$$" "$outdir/$name.ko"
printf '%s\n%s\n' "$outdir/$name.ko" "$release"
