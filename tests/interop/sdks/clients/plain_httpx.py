"""httpx over HTTP/2 with prior knowledge: many calls at once on one connection.

By its asynchronous client: over HTTP/2 the other one must not be shared by threads, for two of them may send their streams' numbers out of order,
which ends the connection (RFC 9113 §5.1.1)."""

import asyncio
import hashlib

import httpx
from common import ATTACHE, GONE, for_each_user


async def talk(user, login):
    # docs: begin
    client = httpx.AsyncClient(base_url=f"{ATTACHE}/echo/", headers={"X-End-User": user}, http1=False, http2=True)
    # docs: end
    async with client:
        me = await client.get("api/me")
        assert (me.http_version, me.json()["user"]) == ("HTTP/2", login), me
        assert "x-end-user" not in me.json()["headers"]
        answers = await asyncio.gather(*(client.get("api/bytes") for _ in range(16)))
        digests = {hashlib.sha256(answer.content).hexdigest() for answer in answers}
        assert digests == {(await client.get("api/bytes")).headers["digest"]}
        sent = await client.post("api/upload", content=chunks())
        assert (sent.status_code, sent.json()["size"]) == (201, 200_000), sent
        busy = await client.get("api/busy")
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")
        refused = await client.get("api/me", headers={"X-End-User": GONE})
        assert (refused.status_code, refused.json()) == (401, {"error": "invalid_token"})


async def chunks():
    for _ in range(20):
        yield b"x" * 10_000


for_each_user(lambda user, login: asyncio.run(talk(user, login)))
