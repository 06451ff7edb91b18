#!/usr/bin/env bash
# Backup and restore, told step by step on real input: a server with patches in a bucket, promotions, a machine and an audit log is
# saved while it runs; its database and its bucket are destroyed; both are restored elsewhere; and the machine, with the token
# it has, is offered what it was offered, and the log is whole. A backup that was damaged is refused.
#
#   tests/backup.sh     (part of `make walkthrough`, which builds first)
#
# Uses packaging/livepatch-backup and livepatch-restore as an operator would, on the private PostgreSQL and S3 server of the tests.
# Leaves nothing behind. LIVEPATCH_BIN_DIR says where the commands are; target/debug if it is not set.
set -euo pipefail
if [ -z "${LIVEPATCH_TEST_DATABASE:-}" ]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/services.sh" "${BASH_SOURCE[0]}" "$@"
fi
name=backup
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sites.sh"
export PATH=$root/packaging:$root/target/tools/bin:$PATH
psql_bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
[ -z "$psql_bin" ] || export PATH=$psql_bin:$PATH

# What the two commands are told by their environment: the database in libpq's variables, the bucket as a remote of rclone.
PGHOST=$(sed 's/.*host=\([^ ]*\).*/\1/' <<<"$LIVEPATCH_TEST_DATABASE")
export PGHOST PGUSER=livepatch RCLONE_CONFIG=$work/rclone.conf
(umask 077 && cat >"$RCLONE_CONFIG" <<CONF
[store]
type = s3
provider = Rclone
endpoint = $LIVEPATCH_TEST_S3
access_key_id = $LIVEPATCH_TEST_S3_KEY
secret_access_key = $LIVEPATCH_TEST_S3_SECRET
CONF
)

# Each site has a bucket of its own name.
storage_of() {
  cat <<YAML
patch-storage.type: s3
patch-storage.s3-bucket: $1
patch-storage.s3-endpoint: $LIVEPATCH_TEST_S3
patch-storage.s3-access-key: $LIVEPATCH_TEST_S3_KEY
patch-storage.s3-secret-key: $LIVEPATCH_TEST_S3_SECRET
YAML
}
machine=1f0c6e1ba97d4d6f8a1d0c9be4f70001
check() {
  run livepatch-client check --state-dir "$work/machine" --machine-id "$machine" "$@"
}
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$@"; }
# What the two servers must agree on, in words: each table's rows, and the audit log's head.
state_of() {
  sql "$1" -c "select 'payloads', count(*), md5(string_agg(filename || encode(sha256, 'hex'), ',' order by id)) from payloads
    union all select 'machines', count(*), md5(string_agg(t::text, ',' order by id)) from machines t
    union all select 'audit', count(*), md5(string_agg(t::text, ',' order by seq)) from audit_log t"
}
# refused COMMAND...: it has to fail, and what it says is in $said.
refused() {
  local status=0
  printf '\n   $ %s\n' "${*//$work/\$WORK}"
  said=$("$@" 2>&1) || status=$?
  printf '%s\n' "${said//$work/\$WORK}" | sed 's/^/     /'
  [ "$status" = 1 ] || fail "that command ended with exit code $status, 1 was expected"
}

# --- The walkthrough --------------------------------------------------------------------------------------------------

step "Two live patches for this machine's kernel headers are compiled, signed and packed (here: by a script)."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}

step "A server with its patches in a bucket: two are uploaded, one reaches stable, the other is held."
mkdir "$LIVEPATCH_TEST_S3_DIR/before"
start before
run livepatch-admin --quiet patch upload "$first" "$second"
says "2 stored"
run livepatch-admin patch promote 106.1 stable --reason "a month without trouble"
run livepatch-admin patch hold 107.1 --reason "wait for the window"
run livepatch-admin tier create night --after edge

step "A machine is enabled, and gets 106.1."
make_token production stable
run livepatch-client enable --server "${url_of[before]}" --cert "$certificate" --machine-id "$machine" \
  --state-dir "$work/machine" --kernel "$kernel" --arch "$arch" - <"$work/production.token"
says "patch 106.1 was verified and kept"
module=$(sha256sum <"$(echo "$work"/machine/*.ko)")
run livepatch-admin audit verify
says "The audit log is whole"

step "A backup, while the server runs: the database first, then the objects of the bucket."
run env PGDATABASE=sites_before livepatch-backup --storage store:before "$work/saved"
says "done"
says_not warning
[ -s "$work/saved/SHA256SUMS" ] || fail "the backup should have been written to its end"
before=$(state_of sites_before)
grep -c 'patches/objects/sha256/' "$work/saved/SHA256SUMS" | grep -qx 2 || fail "the backup should hold two objects"
refused env PGDATABASE=sites_before livepatch-backup --storage store:before "$work/saved"
says "is there already"
refused env PGDATABASE=sites_before livepatch-backup --storage store:nothing-here "$work/second"
[ ! -e "$work/second" ] || fail "a backup that failed should leave nothing behind"

step "After the backup another machine is enabled, with the same auth token."
later=2f0c6e1ba97d4d6f8a1d0c9be4f70002
run livepatch-client enable --server "${url_of[before]}" --cert "$certificate" --machine-id "$later" \
  --state-dir "$work/later" --kernel "$kernel" --arch "$arch" - <"$work/production.token"
says "patch 106.1 was verified and kept"

step "Everything is destroyed: the server, its database, its bucket."
stop before
sql postgres -c 'drop database sites_before'
rm -rf "${LIVEPATCH_TEST_S3_DIR:?}/before"

step "A backup that lost a byte is refused before anything is changed; so is one that was not written to its end."
createdb sites_after
mkdir "$LIVEPATCH_TEST_S3_DIR/after"
cp -R "$work/saved" "$work/damaged"
object=$(find "$work/damaged/patches/objects" -type f | sort | head -n 1)
truncate -s -1 "$object"
refused env PGDATABASE=sites_after livepatch-restore --storage store:after "$work/damaged"
says "nothing was changed"
rm "$work/damaged/SHA256SUMS"
refused env PGDATABASE=sites_after livepatch-restore --storage store:after "$work/damaged"
[ -z "$(find "$LIVEPATCH_TEST_S3_DIR/after" -type f)" ] || fail "the new bucket should be empty"
[ "$(sql sites_after -c "select count(*) from pg_tables where schemaname = 'public'")" = 0 ] || fail "the new database should be empty"

step "The good one is restored, into another database and another bucket."
run env PGDATABASE=sites_after livepatch-restore --storage store:after "$work/saved"
[ "$(state_of sites_after)" = "$before" ] || fail "the restored database differs from the one that was saved:
$before
$(state_of sites_after)"
refused env PGDATABASE=sites_after livepatch-restore --storage store:after "$work/saved"
says "restore into an empty one"

step "A server on what was restored. The audit log is whole, every object is what its row says, the tiers and the hold are there."
start after
run livepatch-admin audit verify
says "The audit log is whole"
run livepatch-admin storage verify
says "verified  2"
run livepatch-admin tier list
says night
run livepatch-admin patch show 107.1
says "wait for the window"

step "The machine comes with the token it has. It is known, and is offered what it was offered; the download verifies."
# As after a change of the name in DNS: the client asks another address, with the same token.
grep -q "${url_of[before]}" "$work"/machine/*.json || fail "the client should have kept the server's address"
sed -i "s|${url_of[before]}|${url_of[after]}|" "$work"/machine/*.json
rm -f "$work"/machine/*.ko
check
says "patch 106.1 was verified and kept"
says_not "107.1 was verified"
[ "$(sha256sum <"$(echo "$work"/machine/*.ko)")" = "$module" ] || fail "the module should be the same as before"
run livepatch-admin explain "$machine"
says "106.1"

step "The machine that was enabled after the backup: its token proves itself, so it is known again at its next check-in."
sed -i "s|${url_of[before]}|${url_of[after]}|" "$work"/later/*.json
run livepatch-client check --state-dir "$work/later" --machine-id "$later"
says "106.1 is offered"
run livepatch-admin machine list
says "$later"

step "Work goes on: the hold is lifted, the patch is promoted, the machine gets it."
run livepatch-admin patch resume 107.1
run livepatch-admin patch promote 107.1 stable --reason "the window is open"
check
says "patch 107.1 was verified and kept"
run livepatch-admin audit verify
says "The audit log is whole"

step "A bucket that has lost an object: the backup is made all the same, and says so."
object=$(find "$LIVEPATCH_TEST_S3_DIR/after/objects" -type f | sort | head -n 1)
rm "$object"
status=0
said=$(env PGDATABASE=sites_after livepatch-backup --storage store:after "$work/third" 2>&1) || status=$?
printf '\n%s\n' "${said//$work/\$WORK}" | sed 's/^/     /'
[ "$status" = 3 ] || fail "that backup ended with exit code $status, 3 was expected"
says "object is missing: ${object##*/}"

step "The server is told to stop (SIGTERM)."
stop after

printf '\nbackup: all %s steps went as told.\n' "$steps"
