#!/usr/bin/env bash
# Goes through PrintPixie in a real browser: signs in, connects two drives, chooses, orders, connects again, disconnects. Writes screenshots.
#
#     examples/printpixie/test.sh ATTACHE_BINARY [FOLDER]        the screenshots go into FOLDER, else into one that is deleted
#
# Wants bash, python3, node 20 with npm, and Chromium (CHROMIUM, or chromium of PATH). Without a browser it says so and skips; with CI set, that fails.
set -euo pipefail

attache=${1:?"usage: test.sh ATTACHE_BINARY [FOLDER], as in test.sh target/release/attache"}
here=$(cd "$(dirname "$0")" && pwd)
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ] || ! command -v npm >/dev/null; then
  echo "printpixie: no Chromium or no npm here: the journey in a browser is NOT tested" >&2
  [ -z "${CI:-}" ] || exit 1
  exit 0
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/printpixie-test-XXXXXX")
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# playwright-core drives the browser that is here; it downloads none.
(cd "$here/test" && npm ci --silent --no-audit --no-fund)
python3 "$here/run.py" --attache "$attache" --any-ports --info "$work/info.json" > "$work/log" 2>&1 &
server=$!
for _ in $(seq 1500); do
  if [ -f "$work/info.json" ]; then break; fi
  kill -0 "$server" 2>/dev/null || break
  sleep 0.2
done
[ -f "$work/info.json" ] || { echo "run.py did not become ready:" >&2; cat "$work/log" >&2; exit 1; }

mkdir -p "${2:-$work/shots}"
CHROMIUM="$chromium" timeout 240 node "$here/test/journey.mjs" "$work/info.json" "${2:-$work/shots}" || { tail -n 60 "$work/log" >&2; exit 1; }
