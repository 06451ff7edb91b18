#!/usr/bin/env bash
# Runs all scenarios of faults often, and makes one table of what was acknowledged, what of it was lost, and how long it
# took until all worked again: target/faults/latest.md, printed too.
#
#   RUNS=20 PAUSE=60 tests/faults.sh
#
# RUNS: how often a process is killed at each place; PAUSE: for how many seconds PostgreSQL is frozen.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$PWD/target/faults
rm -rf "$out"
mkdir -p "$out/rows"
export LIVEPATCH_FAULT_TABLE=$out/rows LIVEPATCH_FAULT_RUNS=${RUNS:-20} LIVEPATCH_FAULT_PAUSE=${PAUSE:-60}

if cargo nextest --version >/dev/null 2>&1; then
  run=(cargo nextest run --locked --profile faults faults_)
else
  run=(cargo test --locked --test it faults_)
fi
status=0
tests/services.sh "${run[@]}" || status=$?

{
  echo '| scenario | runs | acknowledged | lost | slowest to work again |'
  echo '|---|---|---|---|---|'
  cat "$out"/rows/* 2>/dev/null | LC_ALL=C sort || true
} >"$out/latest.md"
cat "$out/latest.md"
[ "$status" = 0 ] || { echo 'faults: a scenario failed, see above' >&2; exit "$status"; }
