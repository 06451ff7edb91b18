#!/usr/bin/env bash
# What `make run` does: installs what is missing, builds, makes real input once, and becomes the server, so that Ctrl-C
# goes to it. A second run starts with the data of the first.
#
#   tests/run.sh          runs; LISTEN and DATA_DIR say where, if not at 127.0.0.1:8080 and in target/run
#   tests/run.sh clean    deletes what runs have kept
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
listen=${LISTEN:-127.0.0.1:8080}

# PostgreSQL does not run as root, and the account it then runs as cannot get into a home directory like /root.
data=${DATA_DIR:-$root/target/run/data}
elsewhere=/var/lib/livepatch-onprem-run
if [ -z "${DATA_DIR:-}" ] && [ "$(id -u)" = 0 ] &&
  ! setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$root" 2>/dev/null; then
  data=$elsewhere
fi

if [ "${1:-}" = clean ]; then
  if [ -e "$data/lock" ] && ! flock -n "$data/lock" true; then
    echo "run: a server is using $data; stop it first" >&2
    exit 1
  fi
  rm -rf "$root/target/run" "$data"
  exit
fi
[ $# -eq 0 ] || { echo "usage: tests/run.sh [clean]" >&2; exit 2; }

# Said before anything is built; the server itself would say it at the end.
if (exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null; then
  echo "run: something answers at $listen already; choose another address: make run LISTEN=127.0.0.1:8081" >&2
  exit 1
fi

tests/setup.sh run
cargo build --release --locked --bins
bin=$root/target/release
mapfile -t input < <(LIVEPATCH_BIN_DIR=$bin tests/quickstart-input.sh target/run)
[ ${#input[@]} -eq 5 ] || exit 1
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}

cat <<TEXT

Two live patches for kernel $kernel ($arch) are made, and are taken in at the first start:
  $first
  $second
The commands are in $bin; this makes them known to a shell, and speaks for a machine of that kernel:
  export PATH=$bin:\$PATH
  livepatch-client enable --server \$LIVEPATCH_URL --cert $certificate \\
    --machine-id $(printf '%032x' 1) --state-dir /tmp/machine-1 --kernel $kernel --arch $arch --assume-applied TOKEN
TEXT
exec "$bin/livepatch-server" quickstart --data-dir "$data" --listen "$listen" \
  --trust-certificate "$certificate" --upload "$first" --upload "$second"
