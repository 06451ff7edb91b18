#!/usr/bin/env bash
# Builds one unsigned live patch for the newest kernel whose headers are installed.
#
#   build.sh OUTDIR NAME TEXT [FUNCTION]
#                               builds OUTDIR/NAME.ko, which makes /proc/cmdline show TEXT;
#                               prints the path of the module, then the kernel release it is for.
#                               FUNCTION is what it replaces, if not the function behind /proc/cmdline
#   build.sh --release          prints that kernel release only
#   build.sh --headers          prints the release of the headers, which is the same where it has an ABI number
#   build.sh --kernel           prints the kernel version as bundle names write it, e.g. 6.1.0-56.1-amd64
#
# Needs: make, gcc and kernel headers (Debian: linux-headers-amd64, Ubuntu: linux-headers-generic).
# Runs may be parallel: each works in a directory of its own.
set -euo pipefail

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

newest_release() {
  local found
  # Only the plain flavours: not -cloud-amd64, not -rt-amd64.
  found=$(find /usr/src -maxdepth 1 -name 'linux-headers-*' -printf '%f\n' | sed 's/^linux-headers-//' |
    grep -E '^[0-9.]+(-[0-9]+|\+[a-z0-9]+)-(amd64|arm64|generic)$' | sort -V | tail -n 1 || true)
  [ -n "$found" ] || fail "no kernel headers under /usr/src; install linux-headers-amd64 (Debian) or linux-headers-generic (Ubuntu)"
  printf '%s\n' "$found"
}

# Bundle names need a kernel's ABI number. Debian 13 and backports have none (6.12.107+deb13-amd64): the digits after
# the + stand in for it, in the name and in the module's vermagic. Such a module fits no kernel that exists.
named_release() {
  local release=$1 suffix
  case "$release" in *+*) ;; *) printf '%s\n' "$release"; return ;; esac
  suffix=${release#*+}
  suffix=${suffix%-*}
  suffix=${suffix//[^0-9]/}
  printf '%s-%s-%s\n' "${release%%+*}" "${suffix:-0}" "${release##*-}"
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

headers=$(newest_release)
release=$(named_release "$headers")
case "${1:-}" in
  --release) printf '%s\n' "$release"; exit 0 ;;
  --headers) printf '%s\n' "$headers"; exit 0 ;;
  --kernel) kernel_version "$release"; exit 0 ;;
esac
[ $# -eq 3 ] || [ $# -eq 4 ] || fail "usage: build.sh OUTDIR NAME TEXT [FUNCTION] | --release | --headers | --kernel"
outdir=$1 name=$2 text=$3 function=${4:-cmdline_proc_show}
# Both end up in a makefile and in C source: only harmless characters.
[[ $name =~ ^[A-Za-z_][A-Za-z0-9_]{0,54}$ ]] || fail "module name '$name': letters, digits and _ expected, at most 55"
[[ $text =~ ^[A-Za-z0-9\ ._:=-]{1,100}$ ]] || fail "text '$text': letters, digits, spaces and . _ : = - expected, at most 100"
[[ $function =~ ^[a-z_][a-z0-9_]{0,99}$ ]] || fail "function '$function': a name in C expected, at most 100 characters"

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$outdir"
outdir=$(cd "$outdir" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/livepatch-kmod.XXXXXXXX")
trap 'rm -rf "$work"' EXIT

{ printf '#define LIVEPATCH_TEXT "%s"\n#define LIVEPATCH_FUNCTION "%s"\n' "$text" "$function"; cat "$here/livepatch.c"; } >"$work/$name.c"
printf 'obj-m := %s.o\n' "$name" >"$work/Makefile"
if ! make -C "/usr/src/linux-headers-$headers" "M=$work" modules >"$work/log" 2>&1; then
  cat "$work/log" >&2
  fail "the module did not build for $headers"
fi
if [ "$release" != "$headers" ]; then
  objcopy -O binary --only-section=.modinfo "$work/$name.ko" "$work/modinfo"
  LC_ALL=C sed -i "s/vermagic=$headers /vermagic=$release /" "$work/modinfo"
  objcopy --update-section ".modinfo=$work/modinfo" "$work/$name.ko"
fi
# In two steps, so that a half-written module is never seen under its name.
cp "$work/$name.ko" "$outdir/.$name.ko.$$"
mv "$outdir/.$name.ko.$$" "$outdir/$name.ko"
printf '%s\n%s\n' "$outdir/$name.ko" "$release"
