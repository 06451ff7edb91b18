#!/usr/bin/env bash
# A chain of three servers, told step by step on real input: the head office takes in live patches and decides which tier they
# reach; the region takes over its tiers and decisions; the branch takes in what is stable. A promotion at the head office
# reaches a machine at the branch, and so does a withdrawal.
#
#   tests/walkthrough-chain.sh     (or `make walkthrough`, which builds first)
#
# Starts three servers on free loopback ports, each with a database of its own in one private PostgreSQL, and leaves nothing
# behind. Every step is checked: the first thing that is not as told ends the walkthrough with an error. LIVEPATCH_BIN_DIR says
# where the commands are; target/debug if it is not set. Needs what `tests/setup.sh test` installs.
set -euo pipefail
# The PostgreSQL is that of the tests; it ends with this script.
if [ -z "${LIVEPATCH_TEST_DATABASE:-}" ]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/services.sh" "${BASH_SOURCE[0]}" "$@"
fi
name=walkthrough-chain
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sites.sh"

# sync_token TIER NAME: the token is then in $token.
sync_token() {
  printf '\n   $ livepatch-admin sync-tokens add %s\n     lpy_... (not shown here)\n' "$*"
  token=$(livepatch-admin --quiet sync-tokens add "$@")
  [[ $token == lpy_* ]] || fail "the command should have printed a token and nothing else"
}
# Fetches, one site after the other.
fetch() {
  local site
  for site in "$@"; do
    at "$site"
    run livepatch-admin --quiet sync trigger --wait
  done
}

# --- The walkthrough --------------------------------------------------------------------------------------------------

step "Two live patches for this machine's kernel headers are compiled, signed and packed (here: by a script)."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}

step "The head office has both patches. They are in its first tier, edge."
start office
run livepatch-admin --quiet patch upload "$first" "$second"
says "2 stored"

step "The region may pull all tiers from the head office. Its administrator gets a token and, to be sure, the public key."
sync_token edge region
run livepatch-server keys show --config "$work/office/livepatch.yaml"
office_key=$said

step "The region's server takes over the tiers of the head office. What that would change is shown to a person first."
flavours=${kernel##*-}
start region enabled=true driver=peer "upstream-url=${url_of[office]}" "token=$token" "upstream-key=$office_key" \
  sync-tiers=true "flavors=$flavours" interval=24h
comes '"digest"' livepatch-admin --output json sync status
run livepatch-admin sync preview
run livepatch-admin --yes --quiet sync confirm
fetch region
run livepatch-admin patch list
says 106.1
says 107.1

step "The branch may pull from the region what is stable; nothing is, so far."
at region
sync_token stable branch
start branch enabled=true driver=peer "upstream-url=${url_of[region]}" "token=$token" "flavors=$flavours" interval=24h
fetch branch
run livepatch-admin patch list
says_not 107.1

step "A machine at the branch: it gets nothing yet."
make_token production edge
run livepatch-client enable --server "${url_of[branch]}" --cert "$certificate" --machine-id 1f0c6e1ba97d4d6f8a1d0c9be4f70001 \
  --state-dir "$work/machine" --kernel "$kernel" --arch "$arch" --assume-applied - <"$work/production.token"
says "no patch is offered to this machine"
check() { run livepatch-client check --state-dir "$work/machine" --machine-id 1f0c6e1ba97d4d6f8a1d0c9be4f70001 --assume-applied; }

step "The head office decides: 107.1 is stable. The region hears of it at its next look, the branch at its own."
at office
run livepatch-admin patch promote 107.1 stable --reason "a month without trouble"
fetch region branch
run livepatch-admin patch list
says 107.1
says_not 106.1

step "The machine at the branch is patched."
check
says "patch 107.1 was verified and kept"

step "It goes wrong after all. The head office blocks the patch, and down the chain it is not offered any more."
at office
run livepatch-admin patch block 107.1 --reason "hangs on some machines"
fetch region branch
run livepatch-admin explain 1f0c6e1ba97d4d6f8a1d0c9be4f70001
says "107.1"
says "block"

step "Each server knows who pulls from it, and how many machines there are; by default only as a range."
at region
run livepatch-admin sync peers
says branch
says 1-49
at office
run livepatch-admin sync peers
says region

step "The region's token is revoked. The region keeps what it has, and says why it gets nothing new."
at office
run livepatch-admin sync-tokens revoke region
at region
status=0
said=$(livepatch-admin --quiet sync trigger --wait 2>&1) || status=$?
printf '\n   $ livepatch-admin --quiet sync trigger --wait\n%s\n' "$(sed 's/^/     /' <<<"$said")"
[ "$status" != 0 ] || fail "that run should have been refused"
says revoked
run livepatch-admin patch list
says 107.1

step "The three servers are told to stop (SIGTERM)."
for site in office region branch; do stop "$site"; done

printf '\nwalkthrough-chain: all %s steps went as told.\n' "$steps"
