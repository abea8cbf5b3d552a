#!/usr/bin/env bash
# The same as printpixie.py with nothing but curl: list an end user's photos and save the first one in full size.
#
#     photos.sh [FILE]
#
# Environment: ATTACHE_URL (http://localhost:7070), END_USER (megan@personalemail.com).
set -euo pipefail

base=${ATTACHE_URL:-http://localhost:7070}
user=${END_USER:-megan@personalemail.com}
file=${1:-photo.jpg}

# The body on standard output; where the answer is an error, it goes to standard error and the exit code is 3 for 401, else 1.
call() {
  local answer status
  answer=$(mktemp)
  status=$(curl -sS --noproxy '*' -o "$answer" -w '%{http_code}' -H "X-End-User: $user" "$base$1") || { rm -f "$answer"; return 1; }
  if [ "$status" != 200 ]; then
    echo "$1 answered $status: $(head -c 600 "$answer")" >&2
    rm -f "$answer"
    if [ "$status" = 401 ]; then return 3; fi
    return 1
  fi
  cat "$answer"
  rm -f "$answer"
}

photos=$(call /photos)
first=$(printf %s "$photos" | sed -n 's/.*"items":\[{"id":"\([^"]*\)".*/\1/p')
[ -n "$first" ] || { echo "$user has no photos" >&2; exit 1; }
# Under another name until it is whole, so that a failure leaves no broken photo behind.
trap 'rm -f "$file.part"' EXIT
call "/photos/$first" > "$file.part"
mv "$file.part" "$file"
echo "saved $first to $file, $(wc -c < "$file" | tr -d ' ') bytes"
