#!/usr/bin/env bash
# The main job, told step by step on real input: two live patches are compiled, signed and packed; a server takes them
# in; an administrator lets one reach tier beta, then stable, then withdraws it; three machines show what that means.
#
#   tests/walkthrough.sh     (or `make walkthrough`, which builds first)
#
# Starts a server of its own in a temporary directory on a free loopback port and leaves nothing behind. Every step is
# checked: the first thing that is not as told ends the walkthrough with an error. LIVEPATCH_BIN_DIR says where the
# commands are; target/debug if it is not set. Needs what `tests/setup.sh run` installs.
set -euo pipefail
name=walkthrough
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"

# Speaks for one of the three machines.
declare -A id=([one]=1f0c6e1ba97d4d6f8a1d0c9be4f70001 [two]=2f0c6e1ba97d4d6f8a1d0c9be4f70002 [three]=3f0c6e1ba97d4d6f8a1d0c9be4f70003)
enable() {
  run livepatch-client enable --server "$url" --cert "$certificate" --machine-id "${id[$1]}" --state-dir "$work/$1" \
    --kernel "$kernel" --arch "$arch" --assume-applied "$2"
}
check() { run livepatch-client check --state-dir "$work/$1" --machine-id "${id[$1]}" --assume-applied; }
has_patch() {
  says "patch $2 was verified and kept"
  local kept=("$work/$1"/*.ko)
  [ -s "${kept[0]}" ] || fail "machine $1 should hold the module of patch $2"
}
has_none() {
  says "no patch is offered to this machine"
  ! compgen -G "$work/$1/*.ko" >/dev/null || fail "machine $1 should not hold a module"
}

# --- The walkthrough --------------------------------------------------------------------------------------------------

step "Two live patches for this machine's kernel headers are compiled, signed and packed (here: by a script)."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}
run livepatch-server bundle inspect --cert "$certificate" "$first" "$second"
says 106.1
says 107.1
says_not refused

step "A server is started: its own database, its own storage, an administrator. It trusts the certificate of step 1."
start_server

step "The administrator logs in. The password comes from a file, so that it stands on no command line."
log_in
run livepatch-admin tier list
for tier in edge beta candidate stable; do says "$tier"; done

step "Both bundles are uploaded. The server checks each one's name, content and signature, and puts them in edge."
run livepatch-admin --quiet patch upload "$first" "$second"
says "2 stored, 0 already there, 0 quarantined, 0 not sent"
run livepatch-admin patch list
says 106.1
says 107.1
run livepatch-admin --quiet storage quarantine list

step "Patch 107.1 may reach beta: first a look at what that would do, then it is done."
run livepatch-admin patch promote 107.1 beta --dry-run
run livepatch-admin patch promote 107.1 beta --reason "fine in edge"

step "A token for each of two tiers. A token enables any number of machines; it is shown once."
make_token laboratory beta
make_token production stable
run livepatch-admin auth-token list
says laboratory
says production
says_not lpa_

step "Machine one is in beta: it is offered 107.1, downloads it and verifies its hash, signature and kernel."
enable one - <"$work/laboratory.token"
has_patch one 107.1

step "Machine two is in stable, which the patch has not reached: it gets nothing, and is told why."
enable two - <"$work/production.token"
has_none two
says "107.1 is not offered: it has reached tier beta, not yet stable"

step "What beta has, stable may have now. Machine two gets the patch when it checks the next time."
run livepatch-admin patch promote-all beta stable --reason "a week in beta without trouble"
says 107.1
check two
has_patch two 107.1

step "The patch turns out to be bad: it is blocked. Machine three, enabled after that, is not offered it."
run livepatch-admin patch block 107.1 --reason "hangs on some machines"
says "2 machines say they run this version"
enable three - <"$work/production.token"
has_none three
says "107.1 is not offered: it is blocked"

step "Why is each machine offered what it is? The server's reasons, the same that the machines were given."
for machine in one two three; do
  run livepatch-admin explain "${id[$machine]}"
  says "107.1 is not offered: it is blocked"
  # Who got it before is told more than who never had it.
  case $machine in
    one | two) says "107.1, which the machine runs, is blocked" ;;
    three) says_not "which the machine runs" ;;
  esac
done
run livepatch-admin machine list
for machine in one two three; do says "${id[$machine]}"; done
run livepatch-admin report patch-health stable 107.1

step "Everything that was done stands in the audit log, whose entries are chained by their hashes."
run livepatch-admin audit list
for action in session.open payload.ingest patch.promote patch.promote-all patch.block auth-token.create; do says "$action"; done
run livepatch-admin audit verify
says "The audit log is whole"

step "The server is told to stop (SIGTERM): it answers what it has begun, then stops its database, then itself."
stop_server

printf '\nwalkthrough: all %s steps went as told.\n' "$steps"
