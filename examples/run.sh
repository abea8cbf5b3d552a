#!/usr/bin/env bash
# Runs every example against `attache dev` on free ports, and checks what they saved.
#
#     examples/run.sh ATTACHE_BINARY
#
# Wants bash, curl, python3 and node 18. Writes under TMPDIR (/tmp) only. Exit code 0 when all passed.
set -uo pipefail

attache=${1:?"usage: run.sh ATTACHE_BINARY, as in run.sh target/release/attache"}
[ -x "$attache" ] || { echo "$attache is no program: build it first" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/attache-examples-XXXXXX")
server= app=
passed=0 failed=0

finish() {
  for one in $app $server; do
    kill "$one" 2>/dev/null
    wait "$one" 2>/dev/null
  done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Five ports that nobody listens on. All are held at once, so that they differ. The last is for the web apps, one after the other.
read -r proxy public admin sandbox web <<< "$(python3 - <<'PY'
import socket
sockets = [socket.socket() for _ in range(5)]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*("127.0.0.1:%d" % one.getsockname()[1] for one in sockets))
PY
)"

"$attache" dev --proxy "$proxy" --public "$public" --admin "$admin" --sandbox "$sandbox" > "$work/dev.out" 2> "$work/dev.log" &
server=$!

ready=
for _ in $(seq 150); do
  kill -0 "$server" 2>/dev/null || break
  # The welcome is printed once the end user is connected, which is after the listeners answer.
  if "$attache" health --address "$admin" 2>/dev/null && grep -q X-End-User "$work/dev.out"; then ready=yes; break; fi
  sleep 0.2
done
if [ -z "$ready" ]; then
  echo "attache dev did not become ready:" >&2
  cat "$work/dev.out" "$work/dev.log" >&2
  exit 1
fi
export ATTACHE_URL="http://$proxy" ATTACHE_ADMIN_URL="http://$admin"

# The web apps' return URL: the route map of `dev` allows port 3000, which may be taken here.
map=$(sed -n 's/^The route map is //p' "$work/dev.out")
export ATTACHE_ADMIN_TOKEN_FILE="${map%/*}/attache.admin-token" PORT="${web##*:}"
sed "s/:3000\"/:$PORT\"/g" "$map" > "$work/map"
# The shape of photos.yaml for the sandbox's photos: the one provider of it that is on every machine.
cat >> "$work/map" <<MAP
  - {name: shaped-list, match: GET /photos/sandbox, provider: sandbox, upstream: "http://$sandbox/v1/photos", response: {select: "items[].{id: id, name: name, thumbnail: join('', ['/photos/sandbox/', id, '/thumbnail'])}"}}
  - {name: shaped-photo, match: "GET /photos/sandbox/{id}", provider: sandbox, upstream: "http://$sandbox/v1/photos/{id}/content"}
  - {name: shaped-thumbnail, match: "GET /photos/sandbox/{id}/thumbnail", provider: sandbox, upstream: "http://$sandbox/v1/photos/{id}/thumbnail"}
MAP
cat "$work/map" > "$map"
if ! curl -sSf --noproxy '*' -X POST -H "Authorization: Bearer $(cat "$ATTACHE_ADMIN_TOKEN_FILE")" "$ATTACHE_ADMIN_URL/v1/reload" > "$work/said"; then
  echo "the route map could not be changed:" >&2
  cat "$work/said" "$work/dev.log" >&2
  exit 1
fi

tell() { # OUTCOME NAME [WHY]
  if [ "$1" = ok ]; then
    passed=$((passed + 1)); echo "ok      $2"
  else
    failed=$((failed + 1)); echo "FAILED  $2: $3"; sed 's/^/          /' "$work/said"
  fi
}

is_jpeg() { # FILE: whole, by its first and last bytes, and no thumbnail
  [ -f "$1" ] && [ "$(head -c 3 "$1" | od -An -tx1 | tr -d ' \n')" = ffd8ff ] \
    && [ "$(tail -c 2 "$1" | od -An -tx1 | tr -d ' \n')" = ffd9 ] && [ "$(wc -c < "$1")" -gt 20000 ]
}

saves() { # NAME FILE COMMAND...: the command saves a JPEG
  local name=$1 file=$2; shift 2
  if ! timeout 60 "$@" > "$work/said" 2>&1; then tell bad "$name" "it failed"; return; fi
  if is_jpeg "$file"; then tell ok "$name"; else tell bad "$name" "$file is no JPEG of full size"; fi
}

refuses() { # NAME COMMAND...: for somebody who is not connected the command ends with 3 and says so
  local name=$1 code=0; shift
  END_USER=nobody@personalemail.com timeout 60 "$@" > "$work/said" 2>&1 || code=$?
  if [ "$code" = 3 ] && grep -q connect "$work/said"; then tell ok "$name"; else tell bad "$name" "expected exit code 3, got $code"; fi
}

saves "photos.sh saves a photo" "$work/sh.jpg" bash "$here/photos.sh" "$work/sh.jpg"
saves "printpixie.py saves a photo" "$work/py.jpg" python3 "$here/printpixie.py" --out "$work/py.jpg"
second=$(sed -n '2s/ .*//p' "$work/said")
saves "printpixie.py saves the photo it is told" "$work/py2.jpg" python3 "$here/printpixie.py" "$second" --out "$work/py2.jpg"
saves "printpixie.mjs saves a photo" "$work/js.jpg" node "$here/printpixie.mjs" "" "$work/js.jpg"
saves "photos.py saves a photo of each place" "$work/places/sandbox.jpg" python3 "$here/photos.py" --out "$work/places" sandbox
if cmp -s "$work/sh.jpg" "$work/places/sandbox.jpg" && [ "$(head -c 3 "$work/places/sandbox-thumbnail.jpg" | od -An -tx1 | tr -d ' \n')" = ffd8ff ]; then
  tell ok "photos.py saved the same photo, and its thumbnail"
else
  tell bad "photos.py saved the same photo, and its thumbnail" "the files say otherwise"
fi
refuses "photos.sh tells who must connect" bash "$here/photos.sh" "$work/none.jpg"
refuses "printpixie.py tells who must connect" python3 "$here/printpixie.py" --out "$work/none.jpg"
refuses "printpixie.mjs tells who must connect" node "$here/printpixie.mjs" "" "$work/none.jpg"
refuses "photos.py tells what is not connected" python3 "$here/photos.py" --out "$work/none" sandbox

connects() { # NAME USER COMMAND...: the web app connects a new end user, after they declined once
  local name=$1 user=$2 one; shift 2
  "$@" > "$work/app" 2>&1 &
  app=$!
  for _ in $(seq 50); do
    if grep -q "PrintPixie is at" "$work/app"; then break; fi
    sleep 0.1
  done
  for one in deny allow; do
    if timeout 120 python3 "$here/drive_connect.py" "http://localhost:$PORT" "$user" "$one" > "$work/said" 2>&1; then
      tell ok "$name, $one"
    else
      cat "$work/app" >> "$work/said"
      tell bad "$name, $one" "the drive did not get through"
    fi
  done
  kill "$app" 2>/dev/null
  wait "$app" 2>/dev/null
  app=
}

connects "connect.py connects a new end user" alex@personalemail.com python3 "$here/connect.py"
connects "connect.mjs connects a new end user" sam@personalemail.com node "$here/connect.mjs"

# The web app, with an Attaché and drives of its own. The journey in a browser is printpixie/test.sh.
if timeout 400 python3 "$here/printpixie/smoke.py" --attache "$attache" > "$work/said" 2>&1; then
  tell ok "printpixie goes from sign-in to order, and on when a drive says no"
else
  tell bad "printpixie goes from sign-in to order, and on when a drive says no" "it failed"
fi

: > "$work/said"
if cmp -s "$work/sh.jpg" "$work/py.jpg" && cmp -s "$work/sh.jpg" "$work/js.jpg" && ! cmp -s "$work/py.jpg" "$work/py2.jpg"; then
  tell ok "all three saved the same first photo, and the second is another"
else
  tell bad "all three saved the same first photo, and the second is another" "the files say otherwise"
fi

if [ "$failed" -gt 0 ]; then echo "the log of attache dev:"; tail -n 40 "$work/dev.log"; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
