#!/bin/sh
# Stands for Canonical's downloader: the documented command line, output and places, and its failures on demand.
# Tests link to this file; what lies beside the link is its world:
#   good-token, enabled   the token that enables it; whether it is
#   store/                the tarballs that upstream has
#   tarballs/, patches/   where it keeps tarballs and extracted patches
#   mode                  what goes wrong: see below
#   calls, environment    what it was called with; the names and values it saw
here=$(dirname "$0")
mode=$(cat "$here/mode" 2>/dev/null)
echo "$*" >>"$here/calls"
env >"$here/environment"
fail() { echo "Error: $*" >&2; exit 1; }

# Ends only when it is killed; whoever reads the pipe sees its end when the last of the group is gone.
hang() {
  exec 3>"$here/pipe"
  sleep 100000 &
  echo hanging >&3
  wait
}

case $1 in
enable)
  [ "$2" = "$(cat "$here/good-token" 2>/dev/null)" ] || fail "cannot enable with token $2: unauthorized"
  touch "$here/enabled"
  echo "Successfully enabled."
  ;;
list)
  [ -e "$here/enabled" ] || fail "the downloader is not enabled, run 'canonical-livepatch-downloader enable <token>'"
  shift
  seen=
  for flag; do
    name=${flag%%=*} value=${flag#*=}
    case " $seen " in *" $name "*) fail "flag $name given twice" ;; esac
    seen="$seen $name"
    case $name in
    --kernel) kernel=$value ;;
    --architecture) architecture=$value ;;
    --flavour) flavour=$value ;;
    --tier) [ "$value" = stable ] || fail "unknown tier \"$value\"" ;;
    *) fail "unknown flag $name" ;;
    esac
  done
  case $mode in
  garbage) printf '<html><body>Sign in to continue</body></html>\n'; exit 0 ;;
  binary) printf '\377\376\000'; exit 0 ;;
  hang) hang ;;
  esac
  for file in "$here"/store/livepatch-"${kernel-}"*; do
    name=${file##*/}
    [ -z "$architecture" ] || case $name in *-"$architecture".tar.bz2) ;; *) continue ;; esac
    [ -z "$flavour" ] || case $name in livepatch-*-"$flavour"-[0-9]*-*) ;; *) continue ;; esac
    echo "- filename: $name"
    echo "  hash: $(sha256sum <"$file" | cut -d' ' -f1)"
  done
  ;;
get-files)
  [ "$2" = -i ] && [ -r "$3" ] && [ "$4" = --keep-tarball ] || fail "usage: get-files -i FILE --keep-tarball"
  [ -e "$here/enabled" ] || fail "the downloader is not enabled, run 'canonical-livepatch-downloader enable <token>'"
  [ "$mode" != hang ] || hang
  total=$(grep -c '^- filename: ' "$3") done=0
  mkdir -p "$here/tarballs"
  for name in $(sed -n 's/^- filename: //p' "$3"); do
    echo "Downloading patch $((done + 1))/$total"
    echo "$name" >>"$here/fetched"
    case $mode in
    kill) if [ $done = 1 ]; then head -c 3 "$here/store/$name" >"$here/tarballs/$name"; kill -9 $$; fi ;;
    full) fail "write $here/tarballs/$name: no space left on device" ;;
    missing) continue ;;
    esac
    cp "$here/store/$name" "$here/tarballs/$name" || fail "cannot fetch $name"
    [ "$mode" != corrupt ] || echo x >>"$here/tarballs/$name"
    mkdir -p "$here/patches/${name%.tar.bz2}"
    echo extracted >"$here/patches/${name%.tar.bz2}/module.ko"
    done=$((done + 1))
  done
  echo "$done/$total patches downloaded successfully."
  echo "Patches downloaded and extracted to $here/patches"
  echo "Patch tarballs saved to $here/tarballs"
  ;;
*) fail "unknown command $1" ;;
esac
