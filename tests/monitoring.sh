#!/usr/bin/env bash
# Monitoring, on a real Prometheus: three servers are made busy, and each metric, rule, alert and dashboard is shown to find what it is for.
#
#   tests/monitoring.sh     (or `make test-monitoring`, which builds first)
#
# The office has machines, rollouts under a policy, refused logins and something in quarantine; the branch syncs from it; the gate speaks
# TLS and asks a contracts service that is away. Prometheus, with our rules, scrapes them every second. All of it is on free loopback
# ports and in a temporary directory, and nothing is left behind. Needs what `tests/setup.sh test` installs.
set -euo pipefail
# The PostgreSQL is that of the tests; it ends with this script.
if [ -z "${LIVEPATCH_TEST_DATABASE:-}" ]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/services.sh" "${BASH_SOURCE[0]}" "$@"
fi
name=monitoring
. "$(dirname "${BASH_SOURCE[0]}")/narrated.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sites.sh"
cd "$root"
readonly chart=$root/charts/livepatch-onprem reference=$root/docs/reference/metrics.md

fleets=() prometheus=
eval "$(declare -f on_finish | sed '1s/on_finish/sites_finish/')"
on_finish() {
  local pid
  for pid in "${fleets[@]}" $prometheus; do
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if [ "$1" != 0 ]; then tail -n 20 "$work/prometheus.log" "$work"/fleet-*.log >&2 2>/dev/null || true; fi
  sites_finish "$1"
}

state() { livepatch-admin rollout list --all --version "$1" --tier "$2" --output json | tr -d ' \n'; }

# --- Rules and dashboards, as they lie there --------------------------------------------------------------------------

step "The rules are well-formed, and each alert fires when it should and not when it should not."
run promtool check rules "$chart"/rules/*.yaml
run promtool test rules tests/rules/*.yaml

# --- Servers with something to do -------------------------------------------------------------------------------------

step "Two live patches: 106.1 will be good, and 107.1 bad for every third machine."
mapfile -t input < <("$root/tests/quickstart-input.sh" "$work/input")
[ ${#input[@]} -eq 5 ] || fail "the bundles could not be made, see above"
certificate=${input[0]} first=${input[1]} second=${input[2]} kernel=${input[3]} arch=${input[4]}

step "The office: machines in two tiers, and a policy that has edge advance by itself and stable approved."
start office
run livepatch-admin --yes tier delete beta
run livepatch-admin --yes tier delete candidate
make_token edge-machines edge
make_token stable-machines stable
printf '%s %s 1\n' "$kernel" "$arch" >"$work/kernels"
for tier in edge stable; do
  livepatch-client fleet --server "$LIVEPATCH_URL" --machines 60 --seed "${#tier}" --token - --kernels "$work/kernels" --rate 40 --duration 30m \
    --downloads --fail patch=107.1,rate=33%,state=apply-failed <"$work/$tier-machines.token" >"$work/fleet-$tier.log" 2>&1 &
  fleets+=($!)
done
cat >"$work/policy.yaml" <<'YAML'
policies:
  edge: {phases: [100%], gate: {machines: 10, failure-rate: 5%, window: 24h}, auto-promote: true, soak: 1s}
  stable: {phases: [100%], approval: true}
YAML
run livepatch-admin --yes --quiet apply -f "$work/policy.yaml" --reason "the test of monitoring"

step "The gate speaks TLS itself; its contracts service is away."
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/gate.key" -out "$work/gate.pem" -days 30 \
  -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 2>/dev/null
mkdir -p "$work/gate"
createdb sites_gate
cat >"$work/gate/livepatch.yaml" <<YAML
server.server-address: 127.0.0.1:0
server.tls.certificate: $work/gate.pem
server.tls.key: $work/gate.key
database.connection-string: "${LIVEPATCH_TEST_DATABASE/dbname=postgres/dbname=sites_gate}"
patch-storage.filesystem-path: $work/gate/patches
patch-trust.certificates: $certificate
contracts.enabled: true
contracts.url: http://127.0.0.1:1
YAML
livepatch-server serve --config "$work/gate/livepatch.yaml" >"$work/gate/log" 2>&1 &
pid_of[gate]=$!
serves "${pid_of[gate]}" "$work/gate/log"
gate=$address
refused() {
  curl -s --cacert "$work/gate.pem" -o "$work/refused" -w '%{http_code}' -H 'content-type: application/json' \
    -d '{"resource-token": "a-token-of-ubuntu-pro"}' "https://$gate/v1/client/1f0c6e1ba97d4d6f8a1d0c9be4f70001"
}
comes '^503$' refused

step "The branch syncs from the office."
at office
token=$(livepatch-admin --quiet sync-tokens add edge branch)
start branch enabled=true driver=peer "upstream-url=${url_of[office]}" "token=$token" "flavors=${kernel##*-}" interval=1h

# --- Prometheus -------------------------------------------------------------------------------------------------------

step "A real Prometheus scrapes them every second."
target() { printf "  - job_name: livepatch-%s\n    static_configs: [{targets: ['%s']}]\n" "$1" "$2"; }
{
  printf 'global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s/rules/*.yaml]\nscrape_configs:\n' "$chart"
  target office "${url_of[office]#http://}"
  target branch "${url_of[branch]#http://}"
  target gate "$gate"
  printf '    scheme: https\n    tls_config: {ca_file: %s}\n' "$work/gate.pem"
} >"$work/prometheus.yml"
run promtool check config "$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --web.listen-address=127.0.0.1:0 >"$work/prometheus.log" 2>&1 &
prometheus=$!
prometheus_address() { grep -o 'Listening on" address=[0-9.:]*' "$work/prometheus.log" | grep -om1 '[0-9.]*:[1-9][0-9]*$'; }
comes '127\.' prometheus_address
api=http://$(prometheus_address)/api/v1
ask() { curl -sS --get "$api/query" --data-urlencode "query=$1"; }
# How many results a query has that are numbers.
results() { ask "$1" | jq -r 'if .status == "success" then [.data.result[] | select(.value[1] != "NaN")] | length else "\(.error)" end'; }
comes '^3$' results 'up{job=~"livepatch.*"} == 1'

# --- Things happen, while it looks ------------------------------------------------------------------------------------

step "106.1 goes through edge and waits at stable for a second person; 107.1 halts in edge."
at office
run livepatch-admin --quiet patch upload "$first"
comes '"state":"awaiting-approval"' state 106.1 stable
run livepatch-admin --quiet patch upload "$second"
comes '"state":"halted"' state 107.1 edge
at branch
run livepatch-admin --quiet sync trigger --wait

step "A file under a wrong name; seven wrong passwords; a machine that pings, and one that is refused."
at office
wrong=$work/livepatch-5.15.0-1.1-generic-106.1-$arch.tar.bz2
cp "$first" "$wrong"
! said=$(livepatch-admin --quiet patch upload "$wrong" 2>&1) || fail "a bundle under a wrong name should not be taken in"
says quarantine
for _ in 1 2 3 4 5 6 7; do
  ! (umask 077 && printf 'admin:wrong\n' >"$work/wrong" && XDG_STATE_HOME=$work/nobody livepatch-admin login --auth-file "$work/wrong") >/dev/null 2>&1 ||
    fail "a wrong password was taken"
done
machine=$LIVEPATCH_URL/v1/client/1f0c6e1ba97d4d6f8a1d0c9be4f70001
machine_token=$(curl -s -H 'content-type: application/json' -d "{\"auth-token\": \"$(<"$work/edge-machines.token")\"}" "$machine" |
  jq -r '."machine-token" // .machineToken // .machine_token')
[[ $machine_token == lp* ]] || fail "the machine should have got a token"
ping() {
  curl -s -o "$work/pong" -w '%{http_code}' -H "authorization: Bearer $machine_token" -H 'content-type: application/json' "$machine/pings" \
    -d "{\"ping-type\": \"ping_after\", \"kernel\": \"$kernel\", \"patch-version\": \"106.1\", \"architecture\": \"$arch\", \"patch-state\": \"applied\"}"
}
comes '^204$' ping
comes '^503$' refused

# --- What Prometheus has ----------------------------------------------------------------------------------------------

step "Each public metric is there, with its labels and no others."
mapfile -t public < <(awk -F'|' '/^## Ours/ {exit} /^\| `/ {gsub(/[` ]/, ""); print $2, $3, $4}' "$reference")
[ ${#public[@]} -eq 20 ] || fail "$reference should list 20 public names, not ${#public[@]}"
# What a series has besides its own labels.
labels() { curl -sS --get "$api/series" --data-urlencode "match[]=$1{job=~\"livepatch.*\"}" | jq -r '[.data[] | keys | map(select(. != "__name__" and . != "job" and . != "instance")) | join(",")] | unique | join(" ")'; }
for line in "${public[@]}"; do
  read -r metric kind wanted <<<"$line"
  wanted=$(tr , '\n' <<<"$wanted" | sort | paste -sd, -)
  if [ "$kind" = histogram ]; then
    comes "^${wanted}\$" labels "${metric}_count"
    comes "^$(printf '%s\nle\n' "${wanted//,/$'\n'}" | sort | paste -sd, -)\$" labels "${metric}_bucket"
  else
    comes "^${wanted}\$" labels "$metric"
  fi
done
# That they count what they should.
for query in \
  'livepatch_server_http_request_duration_seconds_count{handler="/v1/client/:id/updates",method="POST",code="200"}' \
  'livepatch_server_http_auth_duration_seconds_count{token_type=~"machine-token|auth-token|sync-token|session|password|resource-token"}' \
  'livepatch_server_http_authorizer_count{token=~"machine-token|auth-token|sync-token|session"}' \
  'livepatch_server_database_query_duration_seconds_count{method=~"KPI.*"}' \
  'livepatch_server_patch_cache_hits' 'livepatch_server_patch_cache_length' 'livepatch_server_contracts_error_count' \
  'livepatch_server_contracts_server_error_count' 'livepatch_auth_throttled_total' 'livepatch_rollout_halts_total' \
  "livepatch_patch_ping_events{ping_type=\"ping_after\",kernel=\"$kernel\",patch_version=\"106.1\",tier=\"edge\",patch_state=\"applied\",architecture=\"$arch\"}" \
  'livepatch_payloads_quarantined' 'livepatch_verification_failures_total{check="content"}' 'livepatch_sync_fetched_bytes_total{job="livepatch-branch"}' \
  'livepatch_machines{tier="edge",state="applied"}' 'livepatch_machines_by_patch{tier="edge",patch="107.1"}' \
  'livepatch_tls_certificate_expiry_timestamp_seconds{job="livepatch-gate"}'; do
  comes '^[1-9]' results "$query > 0"
done
for kind in machine-token auth-token sync-token session password resource-token; do
  comes '^[1-9]' results "livepatch_server_http_auth_duration_seconds_count{token_type=\"$kind\"} > 0"
done

step "promtool has something to say of public names only, and no series tells a machine."
for site in office branch gate; do
  address=${url_of[$site]:-https://$gate}
  curl -sSf --cacert "$work/gate.pem" "$address/metrics" >"$work/$site.metrics"
  [ -s "$work/$site.metrics" ] || fail "$site should have told its metrics"
  promtool check metrics <"$work/$site.metrics" >"$work/$site.lint" 2>&1 || true
  awk '{print $1}' "$work/$site.lint" | sort -u >"$work/$site.names"
  odd=$(printf '%s\n' "${public[@]}" | awk '{print $1}' | sort | comm -13 - "$work/$site.names")
  [ -z "$odd" ] || fail "promtool complains of what is not public: $(grep -F "$odd" "$work/$site.lint")"
  ! grep -nE '[0-9a-f]{32}|lp[a-z]_' "$work/$site.metrics" || fail "the metrics of $site hold a machine or a token"
done
grep -q livepatch_server_database_error_count "$work/office.names" || fail "promtool should complain of the public names"

step "Each rule is evaluated, and each that records has recorded something."
rules() { curl -sS "$api/rules" | jq -r "$1"; }
comes '^ok$' rules '[.data.groups[].rules[].health] | unique | join(" ")'
mapfile -t recorded < <(rules '.data.groups[].rules[] | select(.type == "recording") | .name')
[ ${#recorded[@]} -ge 10 ] || fail "only ${#recorded[@]} rules record"
for rule in "${recorded[@]}"; do comes '^[1-9]' results "$rule"; done

step "The alerts that should fire do, and those that should not do not."
# The names of the alerts in a state.
alerts() { rules "[.data.groups[].rules[] | select(.type == \"alerting\" and .state == \"$1\") | .name] | unique | join(\" \")"; }
comes 'LivepatchRolloutHalted LivepatchVerificationFailures' alerts firing
printf '     %s\n' "$said"
for alert in LivepatchPayloadsQuarantined LivepatchRolloutAwaitsApproval LivepatchContractsAway; do comes "$alert" alerts pending; done
firing=$(alerts firing)
pending=$(alerts pending)
[[ $firing == *LivepatchRolloutHalted* ]] || fail "Prometheus should still tell which alerts fire; it tells: $firing"
for alert in LivepatchDown LivepatchNoLeader LivepatchSnapshotStale LivepatchDatabaseAway LivepatchSyncNotSucceeded LivepatchObjectStoreErrors LivepatchCertificateExpires; do
  [[ " $firing $pending " != *" $alert "* ]] || fail "$alert should not fire"
done

step "Each query of each dashboard finds something."
mapfile -t queries < <(jq -r '.panels[].targets[]?.expr' "$chart"/dashboards/*.json)
[ ${#queries[@]} -ge 60 ] || fail "the dashboards should have more than ${#queries[@]} queries"
late=()
for query in "${queries[@]}"; do
  query=${query//\$job/livepatch.*}
  # All of what was caused is within ten minutes.
  query=${query//\$__rate_interval/10m}
  [[ $(results "$query") =~ ^[1-9] ]] || late+=("$query")
done
if [ ${#late[@]} -gt 0 ]; then printf '     not yet: %s\n' "${late[@]}"; fi
for query in "${late[@]}"; do comes '^[1-9]' results "$query"; done
printf '     %s queries\n' "${#queries[@]}"

step "All are stopped."
for pid in "${fleets[@]}"; do
  kill -INT "$pid"
  wait "$pid" || true
done
fleets=()
kill -TERM "$prometheus"
wait "$prometheus" || fail "Prometheus ended badly"
prometheus=
for site in office branch gate; do stop "$site"; done
printf '\n%s: all %s steps went as told.\n' "$name" "$steps"
