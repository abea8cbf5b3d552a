"""Upload sessions by hand. A route with `rewrite_location: true` tells the `Location` of a 201 (tus 1.0) and of a 200 (Google) as its own path."""

from urllib.parse import urljoin

import requests
from common import ATTACHE, for_each_user


def test(user, login):
    with requests.Session() as session:
        session.headers["X-End-User"] = user
        start = f"{ATTACHE}/google/tus/files"
        begun = session.post(start, headers={"Tus-Resumable": "1.0.0", "Upload-Length": "6"})
        assert (begun.status_code, begun.headers["Tus-Resumable"]) == (201, "1.0.0"), begun.text
        where = begun.headers["Location"]
        assert where == f"/google/tus/files/{login}", where
        for part in (b"abc", b"def"):
            offset = session.head(urljoin(start, where)).headers["Upload-Offset"]
            sent = session.patch(urljoin(start, where), data=part, headers={"Upload-Offset": offset, "Content-Type": "application/offset+octet-stream"})
            assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, str(int(offset) + 3)), sent.status_code

        begun = session.post(f"{ATTACHE}/google/upload/drive/v3/files?uploadType=resumable", json={"name": "a.bin"})
        where = begun.headers["Location"]
        assert begun.status_code == 200 and where.startswith("/google/upload/drive/v3/files?"), where
        where = urljoin(start, where)
        part = session.put(where, data=b"abc", headers={"Content-Range": "bytes 0-2/6"}, allow_redirects=False)
        assert (part.status_code, part.headers["Range"]) == (308, "bytes=0-2"), part.status_code
        assert session.put(where, data=b"def", headers={"Content-Range": "bytes 3-5/6"}).json()["size"] == "6"


for_each_user(test)
