#!/usr/bin/env bash
# The Helm chart charts/livepatch-onprem: it is well-formed, five real configurations render as they did before, Kubernetes
# knows everything in them, the objects fit together, the server takes its configuration out of them, and what cannot work
# is refused with the right words.
#
#   tests/chart.sh                     look
#   UPDATE_GOLDEN=1 tests/chart.sh     write tests/chart/*.golden.yaml and the chart's README.md anew, then look
#
# LIVEPATCH_BIN_DIR says where livepatch-server is; target/debug if it is not set. Needs what `tests/setup.sh test`
# installs, and no cluster. Database and bucket are those of tests/services.sh.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
server=$(cd "${LIVEPATCH_BIN_DIR:-target/debug}" && pwd)/livepatch-server
venv=$root/target/tools/venv
chart=charts/livepatch-onprem
cases=tests/chart
readonly root server venv chart cases
# Kubernetes: the oldest that the chart takes, and those that are kept up.
readonly VERSIONS='1.30.0 1.34.0 1.35.0 1.36.0 1.37.0'

[ -n "${LIVEPATCH_TEST_DATABASE:-}" ] || exec tests/services.sh "$root/tests/chart.sh" "$@"

fail() { printf 'chart: %s\n' "$*" >&2; exit 1; }
step() { printf '\n# %s\n' "$*"; }
python() { "$venv/bin/python" -B "$@"; }
# No cluster, no configuration of whoever runs this.
helm() {
  HELM_CONFIG_HOME=$work/helm HELM_CACHE_HOME=$work/helm HELM_DATA_HOME=$work/helm KUBECONFIG=$work/none \
    "$venv/bin/helm" "$@"
}

for tool in helm kubernetes-validate python; do
  [ -x "$venv/bin/$tool" ] || fail "$venv/bin/$tool is missing; run 'make setup'"
done
[ -x "$server" ] || fail "$server is not there; build it: cargo build --bins"

work=$(mktemp -d "${TMPDIR:-/tmp}/livepatch-chart.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Rules and dashboards of the chart come and go; how they are packed is tested with a few of the tests' own.
cp -r "$chart" "$work/chart"
rm -rf "$work/chart/rules" "$work/chart/dashboards"
cp -r "$work/chart" "$work/bare"
cp -r "$cases/monitoring/." "$work/chart"

render() { # CHART VALUES [VALUES|OPTION...] : with the same names each time
  local folder=$1 argument arguments=()
  shift
  for argument in "$@"; do
    [[ $argument != *.yaml || $argument = templates/* ]] || arguments+=(-f)
    arguments+=("$argument")
  done
  helm template rel "$folder" --namespace livepatch "${arguments[@]}"
}

step "The chart's page and lists are those of its values, and of the server."
python "$cases/values.py" readme "$chart" >"$work/README.md"
[ -z "${UPDATE_GOLDEN:-}" ] || cp "$work/README.md" "$chart/README.md"
diff -u "$chart/README.md" "$work/README.md" || fail "README.md is stale: UPDATE_GOLDEN=1 tests/chart.sh"
python "$cases/values.py" keys "$chart" "$server"

step "Five configurations: they pass helm lint, and render as before."
names=()
for values in "$cases"/*.values.yaml; do
  name=$(basename "$values" .values.yaml)
  names+=("$name")
  helm lint --strict --quiet "$chart" -f "$values" || fail "$values: helm lint, see above"
  render "$work/chart" "$values" >"$work/$name.yaml" || fail "$values does not render, see above"
  [ -z "${UPDATE_GOLDEN:-}" ] || cp "$work/$name.yaml" "$cases/$name.golden.yaml"
  diff -u "$cases/$name.golden.yaml" "$work/$name.yaml" ||
    fail "$name renders otherwise than before; if that is meant: UPDATE_GOLDEN=1 tests/chart.sh"
done
[ "${#names[@]}" -ge 5 ] || fail "only ${#names[@]} configurations were found"
echo "${names[*]}"

step "Their objects refer to what is there, and have no more rights than they need."
for name in "${names[@]}"; do
  python "$cases/render.py" whole "$work/$name.yaml" "$cases/$name.values.yaml"
done

step "Kubernetes $VERSIONS knows everything in them."
native=()
for name in "${names[@]}"; do
  python "$cases/render.py" native "$work/$name.yaml" "$work/$name.native.yaml"
  native+=("$work/$name.native.yaml")
done
for version in $VERSIONS; do
  "$venv/bin/kubernetes-validate" --strict --no-warn --quiet -k "$version" "${native[@]}" >"$work/validate.log" 2>&1 ||
    { cat "$work/validate.log" >&2; fail "Kubernetes $version would not take this, see above"; }
done
# The same tool notices a field that is not there.
sed 's/automountServiceAccountToken:/automountServiceAccountTokens:/' "${native[0]}" >"$work/mistyped.yaml"
! "$venv/bin/kubernetes-validate" --strict --no-warn --quiet -k 1.37.0 "$work/mistyped.yaml" >/dev/null 2>&1 ||
  fail "kubernetes-validate lets a mistyped field pass"

step "The server takes the configuration, the secrets and the files that its pods get."
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=livepatch.example.com" \
  -addext "subjectAltName=DNS:livepatch.example.com" -keyout "$work/tls.key" -out "$work/tls.crt" 2>/dev/null
for name in "${names[@]}"; do
  python "$cases/pods.py" check "$work/$name.yaml" "$server" "$work"
done

step "The job and the server run as their pods would, with a real database and bucket: ready where probes ask, and stopped in time."
python "$cases/pods.py" run "$work/minimal-s3.yaml" "$server" "$work"

step "What cannot work is refused, and it is said why."
refused=0
for values in "$cases"/bad/*.yaml; do
  expected=$(sed -n 's/^# expect: //p' "$values")
  base=$(sed -n 's/^# base: //p' "$values")
  [ -n "$expected" ] || fail "$values has no '# expect: ' line"
  # With `# base: -` the file stands alone.
  files=("$cases/${base:-minimal-s3}.values.yaml" "$values")
  [ "$base" != - ] || files=("$values")
  if render "$work/chart" "${files[@]}" >/dev/null 2>"$work/refused"; then fail "$values was not refused"; fi
  while IFS= read -r line; do
    grep -qF -- "$line" "$work/refused" || { cat "$work/refused" >&2; fail "$values was refused without the words: $line"; }
  done <<<"$expected"
  # Nothing else is wrong with it, or the base would hide what is meant.
  complaints=$(grep -c '^- ' "$work/refused" || true)
  [ "$complaints" = "$(wc -l <<<"$expected")" ] || { cat "$work/refused" >&2; fail "$values has $complaints things wrong"; }
  refused=$((refused + 1))
done
[ "$refused" -ge 30 ] || fail "only $refused cases were found"
echo "$refused cases"

step "Without rules and dashboards the chart renders too; with its own, each of them arrives as it is."
render "$work/bare" "$cases/httproute-monitoring.values.yaml" >"$work/bare.yaml"
grep -q 'kind: ServiceMonitor' "$work/bare.yaml" || fail "the ServiceMonitor is missing"
! grep -q 'kind: PrometheusRule' "$work/bare.yaml" || fail "there is a PrometheusRule without rules"
render "$chart" "$cases/httproute-monitoring.values.yaml" >"$work/own.yaml"
for folder in "$work/chart:$work/httproute-monitoring.yaml" "$chart:$work/own.yaml"; do
  python "$cases/arrived.py" "${folder%%:*}" "${folder##*:}"
done
mkdir -p "$work/bare/rules"
echo 'rules: []' >"$work/bare/rules/wrong.yaml"
! render "$work/bare" "$cases/httproute-monitoring.values.yaml" >/dev/null 2>"$work/refused" || fail "a file without groups was taken"
# shellcheck disable=SC2016
grep -qF 'rules/wrong.yaml holds no `groups:`' "$work/refused" || { cat "$work/refused" >&2; fail "the wrong words"; }

step "The values in docs/how-to/kubernetes.md work: the first alone, each of the others on top of it."
awk -v out="$work/page" '/^```yaml$/ { n++; inside = 1; next } /^```$/ { inside = 0 } inside { print > (out "-" n ".yaml") }' \
  docs/how-to/kubernetes.md
blocks=0
for block in "$work"/page-*.yaml; do
  render "$work/chart" "$work/page-1.yaml" "$block" >"$work/page.out" || fail "$(cat "$block")"
  blocks=$((blocks + 1))
done
[ "$blocks" -ge 9 ] || fail "only $blocks were found"
echo "$blocks blocks"

step "What is said after an installation is about that installation."
# Only an installation shows them: in a copy they are made part of what is rendered.
printf '%s\n' 'notes: |' '{{ include "livepatch-onprem/templates/NOTES.txt" . | indent 2 }}' >"$work/chart/templates/said.yaml"
notes() { render "$work/chart" "$cases/$1.values.yaml" --show-only templates/said.yaml >"$work/notes"; }
says() { grep -qF -- "$1" "$work/notes" || { cat "$work/notes" >&2; fail "it does not say: $1"; }; }
silent() { ! grep -qF -- "$1" "$work/notes" || { cat "$work/notes" >&2; fail "it says: $1"; }; }
notes development
says 'FOR DEVELOPMENT'
says 'patches are kept in the pod and are gone with it'
says 'There is no administrator yet'
says 'without a registry'
notes ha-ingress-tls
silent WARNING
silent 'There is no administrator yet'
silent 'without a registry'
says 'port-forward service/rel-patches-internal 8081:8081'
says 'livepatch.example.com (Ingress)'
notes httproute-monitoring
# shellcheck disable=SC2016
says '`livepatch-server migrate`'
says 'port-forward service/livepatch-internal 8081:9000'
notes filesystem-pvc
says 'service rel-livepatch-onprem, port 443 (LoadBalancer)'
says 'port-forward service/rel-livepatch-onprem 8081:443'

printf '\nchart: all is well.\n'
