#!/usr/bin/env bash
# Holds the admin API to its own OpenAPI description with generated calls, right ones and wrong ones (schemathesis).
#
#     tests/interop/api.sh ATTACHE_BINARY [OPTION OF SCHEMATHESIS...]
#
# Wants bash, curl, python3 and what `run.py --install` installs. The calls are the same at each run. Exit code 0 when nothing was found.
set -uo pipefail

attache=$(realpath "${1:?"usage: api.sh ATTACHE_BINARY, as in api.sh target/release/attache"}")
shift
[ -x "$attache" ] || { echo "$attache is no program: build it first" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -x "$here/.venv/bin/schemathesis" ]; then
  echo "SKIPPED: the API test needs schemathesis; python3 tests/interop/run.py --install … gets it" >&2
  [ -z "${CI:-}" ]; exit
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/attache-api-XXXXXX")
processes=()

finish() {
  for process in "${processes[@]}"; do kill "$process" 2>/dev/null; wait "$process" 2>/dev/null; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Four ports that nobody listens on. All are held at once, so that they differ.
read -r proxy public admin sandbox <<< "$(python3 - <<'PY'
import socket
sockets = [socket.socket() for _ in range(4)]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*("127.0.0.1:%d" % one.getsockname()[1] for one in sockets))
PY
)"
token=api-test-$(openssl rand -hex 16)

cat > "$work/routes.yaml" <<YAML
listen: {proxy: "$proxy", public: "$public", admin: "$admin"}
store:
  memory: {}
admin:
  tokens: [{name: api-test, token: $token, allow: [connect, read, write, tokens]}]
connect:
  allowed_return_urls: ["http://localhost:3000"]
providers:
  sandbox:
    client_id: printpixie
    client_secret: sandbox-secret
    scopes: [photos.read]
    authorize_url: http://$sandbox/authorize
    token_url: http://$sandbox/token
    device_authorization_url: http://$sandbox/device_authorization
    revoke_url: http://$sandbox/revoke
    token_hosts: ["$sandbox"]
routes:
  - {match: "/sandbox/{*rest}", provider: sandbox, upstream: "http://$sandbox/v1/{rest}"}
YAML

cd "$work" || exit 1
"$attache" sandbox --listen "$sandbox" > sandbox.log 2>&1 & processes+=($!)
"$attache" run -c routes.yaml > attache.log 2>&1 & processes+=($!)
ready=
for _ in $(seq 150); do
  if "$attache" health --address "$admin" 2>/dev/null; then ready=yes; break; fi
  sleep 0.2
done
if [ -z "$ready" ]; then
  echo "attache did not become ready:" >&2
  cat attache.log >&2
  exit 1
fi

import_megan() {
  local end
  end=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ)
  curl -sS --fail-with-body -o imported -X PUT "http://$admin/v1/connections/sandbox/megan@personalemail.com" -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/json' \
    -d "{\"provider\":\"sandbox\",\"end_user\":\"megan@personalemail.com\",\"access_token\":\"at-1\",\"expires_at\":\"$end\",\"scopes\":[\"photos.read\"]}" \
    || { echo "the import failed: $(cat imported)" >&2; exit 1; }
}
import_megan

# In the second round the path names somebody who is there, so that the calls get past 404. Deletion has had its turn by then.
cat > known.toml <<'TOML'
[parameters]
"path.provider" = "sandbox"
"path.end_user" = "megan@personalemail.com"
TOML
: > unknown.toml

# Closing the gate refuses every write after it, as it says: no call of its own would tell anything more.
round() { # CONFIG OPTION...
  "$here/.venv/bin/schemathesis" --config-file "$1" run "http://$admin/openapi.json" --header "Authorization: Bearer $token" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth \
    --exclude-path /v1/store/gate/close --max-examples 30 --generation-deterministic --request-timeout 30 --workers 2 --no-color --warnings off "${@:2}"
}

code=0
round unknown.toml --phases examples,coverage,fuzzing,stateful "$@" || code=$?
import_megan
round known.toml --phases examples,coverage,fuzzing --include-path-regex '^/v1/connections/' --exclude-method DELETE "$@" || code=$?
if grep -q panicked attache.log || ! "$attache" health --address "$admin"; then
  echo "attache did not come through it unharmed" >&2
  code=1
fi
if [ "$code" -ne 0 ]; then echo "the end of attache's log:"; tail -n 20 attache.log; fi
exit "$code"
