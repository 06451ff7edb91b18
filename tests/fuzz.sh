#!/usr/bin/env bash
# Runs every fuzz target of fuzz/ for a bounded time, beginning with the committed corpus, on the installed toolchain.
#
#   tests/fuzz.sh [SECONDS_EACH [TARGET...]]     (20 seconds, all targets)
#
# Ends with an error and the path of the input when one is found that breaks a target; put it into fuzz/corpus/TARGET/ with
# the fix, so that the ordinary tests replay it. What else was found on the way stays in target/fuzz-corpus.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seconds=${1:-20}
shift || true
host=$(rustc -vV | sed -n 's/^host: //p')
if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' "$root/fuzz/Cargo.toml"); fi

# The compiler's own coverage instrumentation, which needs no nightly toolchain. --target keeps it off build scripts.
export CARGO_TARGET_DIR=$root/target/fuzz
export RUSTFLAGS='--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares'
RUSTFLAGS=$(tr -d '\n' <<<"$RUSTFLAGS")
echo "fuzz: building ${#targets[@]} targets (some minutes the first time)"
cargo build --manifest-path "$root/fuzz/Cargo.toml" --locked --release --target "$host" --quiet "${targets[@]/#/--bin=}"

found=$root/target/fuzz-corpus artifacts=$root/target/fuzz-findings
status=0
for target in "${targets[@]}"; do
  mkdir -p "$found/$target" "$artifacts"
  log=$artifacts/$target.log
  # A single input that takes 10 seconds or 1 GiB is a finding too.
  if "$CARGO_TARGET_DIR/$host/release/$target" "$found/$target" "$root/fuzz/corpus/$target" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=1024 -max_len=65536 -artifact_prefix="$artifacts/$target-" -print_final_stats=1 >"$log" 2>&1; then
    printf 'fuzz: %-16s %9s inputs, nothing found\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  else
    status=1
    tail -n 40 "$log" >&2
    printf 'fuzz: %-16s FOUND %s\n' "$target" "$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)" >&2
  fi
done
exit "$status"
