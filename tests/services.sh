#!/usr/bin/env bash
# Starts what the tests need - a private PostgreSQL and a real S3 server, both for this run only - runs a command
# with their addresses in its environment, and stops them again, however the command ends.
#
#   tests/services.sh COMMAND [ARG...]
#
# The command sees:
#   LIVEPATCH_TEST_DATABASE   connection string of an empty cluster's superuser (Unix socket)
#   LIVEPATCH_TEST_S3         URL of the S3 server on a loopback port
#   LIVEPATCH_TEST_S3_KEY, LIVEPATCH_TEST_S3_SECRET
#   LIVEPATCH_TEST_S3_DIR     the folder that the S3 server serves, to damage objects behind its back
# Needs PostgreSQL's server programs and rclone (`make setup` installs both).
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
[ -n "$bin" ] && [ -x "$bin/initdb" ] || bin=$(dirname "$(readlink -f "$(command -v initdb || echo /nonexistent/initdb)")")
[ -x "$bin/initdb" ] || { echo "tests: no PostgreSQL server programs found; run 'make setup'" >&2; exit 1; }
rclone=$here/target/tools/bin/rclone
[ -x "$rclone" ] || rclone=$(command -v rclone || true)
[ -n "$rclone" ] || { echo "tests: rclone is missing; run 'make setup'" >&2; exit 1; }

# PostgreSQL refuses to run as root: borrow an account without rights.
as=()
work=$(mktemp -d "${TMPDIR:-/tmp}/livepatch-test.XXXXXX")
if [ "$(id -u)" = 0 ]; then
  account=nobody
  id postgres >/dev/null 2>&1 && account=postgres
  as=(setpriv "--reuid=$account" "--regid=$(id -g "$account")" --clear-groups)
  chmod 755 "$work"
  install -d -o "$account" -m 700 "$work/pg"
  install -d -o "$account" -m 755 "$work/socket"
else
  mkdir -m 700 "$work/pg" "$work/socket"
fi

s3=
stop() {
  trap - EXIT INT TERM
  [ -z "$s3" ] || { kill "$s3" 2>/dev/null || true; wait "$s3" 2>/dev/null || true; }
  [ ! -f "$work/pg/postmaster.pid" ] || "${as[@]}" "$bin/pg_ctl" -D "$work/pg" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$work"
"${as[@]}" "$bin/initdb" -D "$work/pg" -U livepatch -A trust -E UTF8 --no-locale --no-sync >"$work/initdb.log" 2>&1 ||
  { cat "$work/initdb.log" >&2; exit 1; }
# Durability of the cluster itself is not what these tests are about, and its files live for minutes.
cat >>"$work/pg/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$work/socket'
max_connections = 400
shared_buffers = 128MB
fsync = off
full_page_writes = off
log_min_messages = warning
CONF
"${as[@]}" "$bin/pg_ctl" -D "$work/pg" -w -s -l "$work/pg/server.log" start ||
  { cat "$work/pg/server.log" >&2; exit 1; }
export LIVEPATCH_TEST_DATABASE="host=$work/socket user=livepatch dbname=postgres"

export LIVEPATCH_TEST_S3_KEY=livepatchtest LIVEPATCH_TEST_S3_SECRET=livepatchtestsecret
export LIVEPATCH_TEST_S3_DIR=$work/s3
mkdir "$LIVEPATCH_TEST_S3_DIR"
# Folders are remembered for a moment only, so that what a test does to the files behind the server soon shows. (Zero
# makes the server re-read everything at every step.)
RCLONE_CONFIG=/dev/null "$rclone" serve s3 "$work/s3" --addr 127.0.0.1:0 --dir-cache-time 1ms \
  --auth-key "$LIVEPATCH_TEST_S3_KEY,$LIVEPATCH_TEST_S3_SECRET" >"$work/s3.log" 2>&1 &
s3=$!
for _ in $(seq 200); do
  LIVEPATCH_TEST_S3=$(grep -om1 'http://127\.0\.0\.1:[0-9]*' "$work/s3.log" || true)
  [ -n "$LIVEPATCH_TEST_S3" ] && break
  kill -0 "$s3" 2>/dev/null || { cat "$work/s3.log" >&2; exit 1; }
  read -rt 0.05 <> <(:) || true
done
[ -n "$LIVEPATCH_TEST_S3" ] || { echo "tests: the S3 server did not start:" >&2; cat "$work/s3.log" >&2; exit 1; }
export LIVEPATCH_TEST_S3

cd "$here"
status=0
"$@" || status=$?
exit "$status"
