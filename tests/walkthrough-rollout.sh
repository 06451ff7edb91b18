#!/usr/bin/env bash
# Rollouts, told step by step: two thousand simulated machines in two tiers; a good patch that walks from the first tier to the last by
# itself under policies with short times; then a bad one, which halts in its first phase, is looked at, blocked, and the fleet is well again.
#
#   tests/walkthrough-rollout.sh     (or `make walkthrough`, which builds first)
#
# Starts a server of its own in a temporary directory on a free loopback port and leaves nothing behind. Every step is
# checked: the first thing that is not as told ends the walkthrough with an error. LIVEPATCH_BIN_DIR says where the
# commands are; target/debug if it is not set. Needs what `tests/setup.sh run` installs.
set -euo pipefail
name=walkthrough-rollout
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"

fleets=()
on_finish() {
  local fleet
  for fleet in "${fleets[@]}"; do
    kill -INT "$fleet" 2>/dev/null || true
    wait "$fleet" 2>/dev/null || true
    if [ "$1" != 0 ]; then tail -n 5 "$work"/fleet-*.log >&2; fi
  done
}

# A thousand machines of one tier, which check in two hundred times a second and go on until the end. Patch 107.1 fails on every fifth.
fleet() {
  local tier=$1 seed=$2
  printf '\n   $ livepatch-client fleet --machines 1000 --seed %s --fail patch=107.1,rate=20%%,state=apply-failed ... &\n' "$seed"
  livepatch-client fleet --server "$url" --machines 1000 --seed "$seed" --token - --kernels "$work/kernels" --rate 200 --duration 30m \
    --fail patch=107.1,rate=20%,state=apply-failed <"$work/$tier-machines.token" >"$work/fleet-$tier.log" 2>&1 &
  fleets+=($!)
}

# The same as `comes`, and says what it waits for.
awaits() {
  printf '\n   ... until "%s" says %s\n' "${*:2}" "$1"
  comes "$@"
}
# The state of a patch's rollout in a tier.
state() { livepatch-admin rollout list --all --version "$1" --tier "$2" --output json | tr -d ' \n'; }

# --- The walkthrough --------------------------------------------------------------------------------------------------

step "Two live patches are compiled, signed and packed. 106.1 will be good, and 107.1 bad for every fifth machine."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}

step "A server with two tiers: edge, and then stable."
start_server
log_in
run livepatch-admin --yes tier delete beta
run livepatch-admin --yes tier delete candidate

step "Two thousand machines, a thousand in each tier, that check in all the time."
make_token edge-machines edge
make_token stable-machines stable
printf '%s %s 1\n' "$kernel" "$arch" >"$work/kernels"
fleet edge 1
fleet stable 2
awaits '"machines":1000,.*"machines":1000,' bash -c 'livepatch-admin tier list --output json | tr -d " \n"'

step "A policy for each tier: tenths, halves, all; what edge has had for a second goes on to stable by itself."
cat >"$work/policy.yaml" <<'YAML'
policies:
  edge:
    phases: [10% for 1s, 50% for 1s, 100%]
    gate: {machines: 20, failure-rate: 5%, window: 24h}
    auto-promote: true
    soak: 1s
  stable:
    phases: [10% for 1s, 100%]
    gate: {machines: 20, failure-rate: 5%, window: 24h}
YAML
run livepatch-admin policy check "$work/policy.yaml"
run livepatch-admin plan -f "$work/policy.yaml"
says "Tier edge gets a policy"
says "a healthy patch that is promoted now would be at"
run livepatch-admin --yes --quiet apply -f "$work/policy.yaml" --reason "the walkthrough"
run livepatch-admin drift -f "$work/policy.yaml"
says "nothing changes"

step "What would a patch that is bad for every fifth machine reach under such a policy? First on paper."
run livepatch-server simulate --policy "$work/policy.yaml" --tier edge --fleet machines=100000,interval=1h --fault rate=20%,state=apply-failed
says "halted:"

step "The good patch is uploaded. Nobody promotes anything: it comes to edge by phases, and then to stable."
run livepatch-admin --quiet patch upload "$first"
awaits '"state":"done"' state 106.1 edge
awaits '"state":"done"' state 106.1 stable
run livepatch-admin rollout list --all --version 106.1
awaits '"total":1000,' bash -c 'livepatch-admin report machines stable 106.1 --output json | tr -d " \n"'
run livepatch-admin rollout show 1
says "phase 2 begins"
says "everybody is let in"
says "promoted to stable"

step "The bad patch is uploaded. Its rollout halts in the first phase, and says why in numbers."
run livepatch-admin --quiet patch upload "$second"
awaits '"state":"halted"' state 107.1 edge
run livepatch-admin rollout list
says halted
says "more than the 5% that the gate allows"
id=$(livepatch-admin rollout list --version 107.1 --output json | grep -om1 '"id": [0-9]*' | tr -dc 0-9)
run livepatch-admin rollout show "$id"
offered=$(livepatch-admin rollout show "$id" --output json | grep -om1 '"offered": [0-9]*' | tr -dc 0-9)
[ "$offered" -le 200 ] || fail "$offered machines were offered the bad patch; a tenth of a thousand and a few were expected"
printf '\n     of 2,000 machines %s were offered it\n' "$offered"

step "A machine that was not offered it is told why."
machine=$(livepatch-admin machine list --tier edge --state applied --output json | grep -om1 '[0-9a-f]\{32\}')
run livepatch-admin explain "$machine"
says "its rollout halted, because too many machines failed with it"

step "Who has it, who has asked since, who is silent: as a table, and as CSV for everybody else."
run livepatch-admin rollout reach 107.1
run livepatch-admin coverage
step "A person blocks it. The machines it failed on are offered the good one again, and the fleet is well."
run livepatch-admin --yes rollout block "$id" --reason "fails on every fifth machine"
says "is aborted now"
awaits '"items":\[\]' bash -c 'livepatch-admin machine list --tier edge --state apply-failed --output json | tr -d " \n"'
run livepatch-admin audit verify
says "The audit log is whole"

step "The fleet and the server are stopped."
for pid in "${fleets[@]}"; do
  kill -INT "$pid"
  wait "$pid" || true
done
fleets=()
run tail -n 12 "$work/fleet-edge.log"
stop_server
printf '\n%s: all %s steps went as told.\n' "$name" "$steps"
