"""A resumable upload by hand: the session's `Location` is Attaché's own path, by the route's `rewrite_location: true`."""

from urllib.parse import urljoin

import requests
from common import ATTACHE, for_each_user


def test(user, login):
    with requests.Session() as session:
        session.headers["X-End-User"] = user
        start = f"{ATTACHE}/google/upload/drive/v3/files?uploadType=resumable"
        begun = session.post(start, json={"name": "a.bin"}, headers={"X-Upload-Content-Length": "6"})
        assert begun.status_code == 200, begun.text
        where = urljoin(start, begun.headers["Location"])
        assert where.startswith(f"{ATTACHE}/google/upload/"), where
        part = session.put(where, data=b"abc", headers={"Content-Range": "bytes 0-2/6"}, allow_redirects=False)
        assert (part.status_code, part.headers["Range"]) == (308, "bytes=0-2"), part.status_code
        assert session.put(where, data=b"def", headers={"Content-Range": "bytes 3-5/6"}).json()["size"] == "6"


for_each_user(test)
