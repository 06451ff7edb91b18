#!/usr/bin/env bash
# The air gap, told step by step on real input: a connected staging node fetches live patches through the downloader command (a
# stand-in with the documented command line: Canonical's own needs a subscription and the network) and lets one reach stable; an archive in small volumes is carried to a server without any network, which trusts nothing but the key that was read
# out to it; a machine there is patched; and how its fleet fares is carried back out.
#
#   tests/walkthrough-airgap.sh     (or `make walkthrough`, which builds first)
#
# Starts two servers on free loopback ports, each with storage and a database of its own in one private PostgreSQL, and leaves
# nothing behind. Every step is checked: the first thing that is not as told ends the walkthrough with an error. LIVEPATCH_BIN_DIR
# says where the commands are; target/debug if it is not set. Needs what `tests/setup.sh test` installs.
set -euo pipefail
# The PostgreSQL is that of the tests; it ends with this script.
if [ -z "${LIVEPATCH_TEST_DATABASE:-}" ]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/services.sh" "${BASH_SOURCE[0]}" "$@"
fi
name=walkthrough-airgap
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sites.sh"
stick=$work/stick

# A command that must be refused.
refused() {
  local status=0
  printf '\n   $ %s\n' "${*//$work/\$WORK}"
  said=$("$@" 2>&1) || status=$?
  printf '%s\n' "${said//$work/\$WORK}" | sed 's/^/     /'
  [ "$status" = 1 ] || fail "that command ended with exit code $status, 1 was expected"
}
# The machine at the isolated site, which checks in every hour.
readonly machine=1f0c6e1ba97d4d6f8a1d0c9be4f70001
check() { run livepatch-client check --state-dir "$work/machine" --machine-id "$machine" --assume-applied; }

# --- The walkthrough --------------------------------------------------------------------------------------------------

step "Two live patches for this machine's kernel headers are compiled, signed and packed (here: by a script)."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}
# The stand-in's world is the folder that it is linked from.
outside=$work/outside downloader=$work/outside/canonical-livepatch-downloader
mkdir -p "$stick" "$outside/store"
ln -s "$root/tests/it/support/canonical-downloader.sh" "$downloader"
echo token-of-a-subscription >"$outside/good-token"

step "The staging node fetches the first patch through the downloader command, which then reaches stable."
cp "$first" "$outside/store"
start staging enabled=true driver=downloader "downloader-command=$downloader" "downloader-tarballs=$outside/tarballs" \
  downloader-tier=stable token=token-of-a-subscription "flavors=${kernel##*-}" interval=24h
run livepatch-admin --quiet sync trigger --wait
run livepatch-admin patch list
says 106.1
[ -z "$(ls -A "$outside/tarballs")" ] || fail "the downloader's tarballs were left behind"
run livepatch-admin patch promote 106.1 stable --reason "fine on the test machines"

step "The site without network has a server of its own. Its administrator is read the staging node's key, by telephone."
at staging
run livepatch-server keys show
staging_key=$said
start isolated
run livepatch-server keys trust "$staging_key" --name staging

step "An archive is written onto sticks: none of them has room for the patch and everything else."
at staging
room=$(($(stat -c %s "$first") + 6144))
run livepatch-server export -o "$stick/" --volume-size "$room"
says "Version "
since=$(sed -n 's/.*--since \([0-9]*\)$/\1/p' <<<"$said")
volumes=("$stick"/*.tar)
[ ${#volumes[@]} -eq 2 ] || fail "there should be two volumes on the stick"

step "One volume is forgotten, and of another copy a byte is altered: the isolated server says which, and takes in nothing."
at isolated
refused livepatch-server import "${volumes[0]}" --yes
says "volume 2 (probably"
cp -r "$stick" "$work/altered"
altered=("$work"/altered/*.tar)
last=${altered[-1]}
printf 'X' | dd of="$last" bs=1 seek=$(($(stat -c %s "$last") - 2000)) conv=notrunc status=none
refused livepatch-server import "$work/altered" --yes
says "was altered"

step "The archive as it was written: first a look at what it would change, then it is taken in."
run livepatch-server import "$stick" --dry-run
says "106.1"
says "Nothing was changed"
run livepatch-server import "$stick" --yes --tiers
says "Done: 1 added"
run livepatch-admin patch list
says 106.1

step "A machine at the isolated site is enabled for stable: it is offered the patch, fetches it and verifies it."
make_token production stable
run livepatch-client enable --server "$LIVEPATCH_URL" --cert "$certificate" --machine-id "$machine" \
  --state-dir "$work/machine" --kernel "$kernel" --arch "$arch" --assume-applied - <"$work/production.token"
says "patch 106.1 was verified and kept"

step "A week later there is a second patch. Only what is new goes onto the stick."
at staging
cp "$second" "$outside/store"
run livepatch-admin --quiet sync trigger --wait
run livepatch-admin patch promote 107.1 stable --reason "a week in beta without trouble"
mkdir "$stick/next"
run livepatch-server export -o "$stick/next/" --since "$since"
says "1 payload that came after version $since, of 2 in all"

step "It is taken in while the server runs; the machine has it at its next check."
at isolated
run livepatch-server import "$stick/next" --yes --tiers
says "Done: 1 added"
check
says "patch 107.1 was verified and kept"

step "The old archive once more: it is older than what was taken in, and is refused."
refused livepatch-server import "$stick"/*.tar --yes --tiers
says "this is an older archive"

step "How the fleet fares is carried back out. The staging node trusts the isolated site's key for that."
run livepatch-server keys show
isolated_key=$said
check
run livepatch-server export --status -o "$stick/status.json"
at staging
refused livepatch-server import --status "$stick/status.json"
says "not signed with a key that is trusted here"
run livepatch-server keys trust "$isolated_key" --name isolated
run livepatch-server import --status "$stick/status.json"
says "107.1"
run livepatch-admin sync peers
says "archive"

step "Everything that was done stands in both audit logs."
run livepatch-admin audit list
says archive.export
says status.import
run livepatch-admin audit verify
says "The audit log is whole"
at isolated
run livepatch-admin audit verify
says "The audit log is whole"

step "Both servers are told to stop."
stop staging
stop isolated

printf '\nwalkthrough-airgap: all %s steps went as told.\n' "$steps"
