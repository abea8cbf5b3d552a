#!/usr/bin/env python3
"""PrintPixie, the smallest client app: list an end user's photos and save one in full size.

It holds no token, no client secret and no OAuth library: plain HTTP to Attaché, and one header that says on whose behalf.

    printpixie.py [PHOTO_ID] [--out FILE]        the first photo, unless one is named

Environment: ATTACHE_URL (http://localhost:7070), END_USER (megan@personalemail.com).
"""

import argparse
import json
import os
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request

ATTACHE_URL = os.environ.get("ATTACHE_URL", "http://localhost:7070")
END_USER = os.environ.get("END_USER", "megan@personalemail.com")
# No proxies: an HTTP_PROXY in the environment is not meant for a call to this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(path):
    """An open answer to read from; every call looks like this one."""
    request = urllib.request.Request(ATTACHE_URL + path, headers={"X-End-User": END_USER})
    return OPENER.open(request, timeout=60)


def explain(error):
    """What went wrong, and the exit code: 3 where the end user must connect (again)."""
    body = error.read()
    if error.headers.get_content_type() != "application/problem+json":
        return f"the photo service answered {error.code}: {body[:200].decode(errors='replace')}", 1
    # One of Attaché's own errors (docs/errors.md). The upstream's pass through as they are.
    problem = json.loads(body)
    name = problem["type"].removeprefix("urn:attache:")
    if name in ("not-connected", "reconnect-required"):
        return f"{END_USER} must connect first: {problem['detail']}\nAn app shows its \"connect your photos\" button here.", 3
    return f"{name}: {problem['detail']} (request {problem.get('instance')})", 1


def main():
    arguments = argparse.ArgumentParser(description="Save a photo of an end user through Attaché.")
    arguments.add_argument("photo_id", nargs="?", help="as the list names it; without one, the first photo")
    arguments.add_argument("--out", default="photo.jpg", help="where to save it (photo.jpg)")
    arguments = arguments.parse_args()

    photo_id = arguments.photo_id
    if photo_id is None:
        with call("/photos") as answer:
            photos = json.load(answer)["items"]
        if not photos:
            print(f"{END_USER} has no photos", file=sys.stderr)
            return 1
        for photo in photos:
            print(f"{photo['id']}  {photo['name']}")
        photo_id = photos[0]["id"]

    with call("/photos/" + urllib.parse.quote(photo_id, safe="")) as answer, open(arguments.out, "wb") as file:
        shutil.copyfileobj(answer, file)
    print(f"saved {photo_id} to {arguments.out}, {os.path.getsize(arguments.out)} bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except urllib.error.HTTPError as failed:
        text, code = explain(failed)
        print(text, file=sys.stderr)
        sys.exit(code)
    except urllib.error.URLError as failed:
        print(f"{ATTACHE_URL} does not answer ({failed.reason}): is `attache dev` running?", file=sys.stderr)
        sys.exit(1)
