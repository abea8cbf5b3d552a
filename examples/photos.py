#!/usr/bin/env python3
"""One loop over every place where an end user keeps photos, without knowing which is which.

It holds no token and knows no API: the routes of photos.yaml give each provider's list one shape.

    photos.py [--out FOLDER] [PROVIDER ...]      all eight of photos.yaml, unless some are named

Environment: ATTACHE_URL (http://localhost:7070), END_USER (megan@personalemail.com). Exit code 3 where nothing is connected.
"""

import argparse
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request

ATTACHE_URL = os.environ.get("ATTACHE_URL", "http://localhost:7070")
END_USER = os.environ.get("END_USER", "megan@personalemail.com")
PROVIDERS = ["google", "onedrive", "dropbox", "box", "flickr", "smugmug", "icloud"]
# Google Photos lists what the user picked in a session: name it as google-photos?sessionId=ID (docs/photos.md).

# No proxies: an HTTP_PROXY in the environment is not meant for a call to this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(path):
    """The bytes at a path of Attaché; every call looks like this one."""
    request = urllib.request.Request(ATTACHE_URL + path, headers={"X-End-User": END_USER})
    with OPENER.open(request, timeout=60) as answer:
        return answer.read()


def why(error):
    """What to tell the end user: connect first, or what else went wrong."""
    if error.headers.get_content_type() != "application/problem+json":
        return f"answered {error.code}"
    name = json.load(error)["type"].removeprefix("urn:attache:")
    return {"not-connected": "not connected yet", "reconnect-required": "to be connected again", "provider-not-configured": "off"}.get(name, name)


def main():
    arguments = argparse.ArgumentParser(description="List an end user's photos wherever they are, and save the first of each place.")
    arguments.add_argument("provider", nargs="*", default=PROVIDERS)
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path("photos"), help="where to save them (photos)")
    arguments = arguments.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    found = 0
    for provider in arguments.provider:
        name = provider.split("?")[0]
        try:
            photos = json.loads(get(f"/photos/{provider}"))
            print(f"{name}: {len(photos)} photos")
            for photo in photos[:1]:
                # An id stands in the path as the list has it, and a thumbnail is a path already.
                (arguments.out / f"{name}.jpg").write_bytes(get(f"/photos/{name}/{photo['id']}"))
                if photo["thumbnail"]:
                    (arguments.out / f"{name}-thumbnail.jpg").write_bytes(get(photo["thumbnail"]))
                print(f"  saved {photo['name']}")
            found += 1
        except urllib.error.HTTPError as error:
            with error:
                print(f"{name}: {why(error)}")
    return 0 if found else 3


if __name__ == "__main__":
    try:
        sys.exit(main())
    except urllib.error.URLError as failed:
        print(f"{ATTACHE_URL} does not answer ({failed.reason}): is `attache run` running?", file=sys.stderr)
        sys.exit(1)
