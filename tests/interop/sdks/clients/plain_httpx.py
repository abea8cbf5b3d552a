"""httpx over HTTP/2 with prior knowledge: many calls at once on one connection."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import httpx
from common import ATTACHE, GONE, for_each_user


def test(user, login):
    # docs: begin
    client = httpx.Client(base_url=f"{ATTACHE}/echo/", headers={"X-End-User": user}, http1=False, http2=True)
    # docs: end
    with client:
        me = client.get("api/me")
        assert (me.http_version, me.json()["user"]) == ("HTTP/2", login), me
        assert "x-end-user" not in me.json()["headers"]
        with ThreadPoolExecutor(8) as pool:
            digests = set(pool.map(lambda _: hashlib.sha256(client.get("api/bytes").content).hexdigest(), range(16)))
        assert digests == {client.get("api/bytes").headers["digest"]}
        chunks = [b"x" * 10_000] * 20
        sent = client.post("api/upload", content=iter(chunks))
        assert (sent.status_code, sent.json()["size"]) == (201, 200_000), sent
        busy = client.get("api/busy")
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")
        refused = client.get("api/me", headers={"X-End-User": GONE})
        assert (refused.status_code, refused.json()) == (401, {"error": "invalid_token"})


for_each_user(test)
