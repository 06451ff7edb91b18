#!/usr/bin/env bash
# A rolling upgrade, told step by step: the server of an older version serves; the new version starts beside it on the same database and
# storage, and brings the schema up to date; both serve the same machine, and each sees what is done at the other; the old one stops.
#
#   tests/upgrade.sh OLD_BIN_DIR     (`make test-upgrade` builds both versions first)
#
# Leaves nothing behind. LIVEPATCH_BIN_DIR says where the commands of the new version are; target/debug if it is not set.
set -euo pipefail
[ $# = 1 ] || { echo "usage: tests/upgrade.sh OLD_BIN_DIR" >&2; exit 2; }
old_bin=$(cd "$1" && pwd)
if [ -z "${LIVEPATCH_TEST_DATABASE:-}" ]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/services.sh" "${BASH_SOURCE[0]}" "$old_bin"
fi
name=upgrade
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sites.sh"

# Both versions stand on the same: `start` is told so by these two.
storage_of() { printf 'patch-storage.filesystem-path: %s\n' "$work/patches"; }
shared=${LIVEPATCH_TEST_DATABASE/dbname=postgres/dbname=sites_upgrade}
LIVEPATCH_TEST_DATABASE_ALL=$LIVEPATCH_TEST_DATABASE
createdb_once() { [ -n "${created[sites_upgrade]-}" ] || createdb sites_upgrade; created["sites_$1"]=1; }
# start_from BIN SITE: a server of that version.
start_from() {
  createdb_once "$2"
  LIVEPATCH_TEST_DATABASE=$shared PATH=$1:$PATH start "$2"
  LIVEPATCH_TEST_DATABASE=$LIVEPATCH_TEST_DATABASE_ALL
}
machine=1f0c6e1ba97d4d6f8a1d0c9be4f70002
# checks SITE VERSION: the machine asks there, and has that version then.
checks() {
  # Both stand behind one name in reality; here the machine is told the other address.
  sed -i "s#http://127\.0\.0\.1:[0-9]*#${url_of[$1]}#g" "$work/machine/state.json"
  run livepatch-client check --state-dir "$work/machine"
  run livepatch-client status --state-dir "$work/machine"
  says "$2"
}
# becomes PATTERN COMMAND...: what is done at one server is seen at the other within seconds.
becomes() {
  comes "$@"
  shift
  run "$@"
}

step "Two live patches for this machine's kernel headers are compiled, signed and packed (here: by a script)."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}

step "The old version serves: $("$old_bin/livepatch-server" --version). A machine is enabled there and gets 106.1."
start_from "$old_bin" old
run livepatch-admin patch upload "$first"
run livepatch-admin patch promote 106.1 stable
make_token production stable
run livepatch-client enable --server "${url_of[old]}" --cert "$certificate" --machine-id "$machine" \
  --state-dir "$work/machine" --kernel "$kernel" --arch "$arch" - <"$work/production.token"
says "patch 106.1 was verified and kept"

step 'The new version starts beside it, and brings the schema up to date.'
start_from "$bin" new
run livepatch-admin audit verify
says "The audit log is whole"

step 'Both serve the machine, with the token that the old one gave out.'
checks new 106.1
checks old 106.1

step 'What is done at one is seen at the other, both ways.'
at new
run livepatch-admin patch upload "$second"
run livepatch-admin patch promote 107.1 stable
at old
becomes '107\.1' livepatch-admin patch list
run livepatch-admin patch hold 107.1 --reason 'held at the old version'
at new
becomes 'held at the old version' livepatch-admin patch show 107.1
run livepatch-admin patch resume 107.1
checks old 107.1
checks new 107.1

step 'The old version stops in order; nothing was lost, and the log is whole.'
stop old
checks new 107.1
at new
run livepatch-admin machine show "$machine"
says 107.1
run livepatch-admin audit verify
says "The audit log is whole"
stop new
printf '\nupgrade: all is well.\n'
