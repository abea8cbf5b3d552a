#!/usr/bin/env bash
# Runs every fuzz target for a while, two side by side. A finding fails the run and is left in fuzz/artifacts/.
#
#   fuzz/run.sh [SECONDS]        60 by default; TARGETS="jwt config" runs these alone
#
# libFuzzer's instrumentation is not stable Rust: RUSTC_BOOTSTRAP=1 is set for this step and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
export RUSTC_BOOTSTRAP=1 CARGO_TERM_COLOR=never
tools=fuzz/target/tools
if ! command -v cargo-fuzz >/dev/null && ! [ -x "$tools/bin/cargo-fuzz" ]; then
  env -u RUSTC_BOOTSTRAP cargo install --quiet --locked --root "$tools" --version 0.13.2 cargo-fuzz
fi
export PATH="$PWD/$tools/bin:$PATH"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fuzz build --sanitizer none
mkdir -p fuzz/corpus fuzz/artifacts fuzz/target/logs

one() {
  local target=$1
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  if "fuzz/target/$host/release/$target" "fuzz/corpus/$target" "fuzz/seeds/$target" \
    -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=4096 \
    -print_final_stats=1 >"fuzz/target/logs/$target.log" 2>&1; then
    printf '%-16s %s executions\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz/target/logs/$target.log")"
  else
    printf '%-16s FOUND something:\n' "$target"
    tail -n 40 "fuzz/target/logs/$target.log"
    return 1
  fi
}
export -f one
export seconds host
targets=${TARGETS:-$(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2)}
printf '%s\n' $targets | xargs -P 2 -I{} bash -c 'one {}'
