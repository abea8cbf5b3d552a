"""requests: a session with one header."""

import hashlib

import requests
from common import ATTACHE, GONE, UPSTREAM, for_each_user


def test(user, login):
    # docs: begin
    session = requests.Session()
    session.headers["X-End-User"] = user
    me = session.get(f"{ATTACHE}/echo/api/me", params={"fields": "a&b"}).json()
    # docs: end
    assert (me["user"], me["query"]) == (login, {"fields": "a&b"}), me
    assert "x-end-user" not in me["headers"] and "via" in me["headers"], me
    got = session.get(f"{ATTACHE}/echo/api/bytes")
    assert hashlib.sha256(got.content).hexdigest() == got.headers["Digest"]
    chunks = [b"x" * 10_000] * 20
    sent = session.post(f"{ATTACHE}/echo/api/upload", data=iter(chunks)).json()
    assert sent == {"user": login, "size": 200_000, "sha256": hashlib.sha256(b"".join(chunks)).hexdigest()}, sent
    items, link = [], f"{UPSTREAM}/api/pages"
    while link:
        page = session.get(link.replace(UPSTREAM, f"{ATTACHE}/echo")).json()
        items, link = items + page["items"], page["next"]
    assert items == [f"{login}-{n}" for n in range(3)], items
    busy = session.get(f"{ATTACHE}/echo/api/busy")
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "7")
    refused = requests.get(f"{ATTACHE}/echo/api/me", headers={"X-End-User": GONE})
    assert (refused.status_code, refused.json()) == (401, {"error": "invalid_token"})
    assert requests.get(f"{ATTACHE}/echo/api/me").json()["type"] == "urn:attache:end-user-missing"


for_each_user(test)
