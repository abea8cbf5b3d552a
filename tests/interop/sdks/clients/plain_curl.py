"""curl with Attaché as its HTTP proxy: the upstream's own URLs, as they stand."""

import json
import os
import subprocess
import tempfile

from common import ATTACHE, GONE, UPSTREAM, for_each_user


def curl(user, *more, env=None):
    command = ["curl", "--proxy", ATTACHE, "--proxy-user", f"printer:{os.environ['CALLER_KEY']}", "-H", f"X-End-User: {user}", *more]
    return run(command)


def run(command, env=None):
    quiet = [command[0], "--silent", "--show-error", "--write-out", "\n%{http_code}", *command[1:]]
    said = subprocess.run(quiet, capture_output=True, text=True, check=True, env={**os.environ, **(env or {})}).stdout
    body, _, status = said.rpartition("\n")
    return int(status), json.loads(body) if body else None


def test(user, login):
    status, me = curl(user, f"{UPSTREAM}/api/me?a=1")
    assert (status, me["user"], me["query"]) == (200, login, {"a": "1"}), me
    assert not [name for name in me["headers"] if name.startswith(("proxy-", "x-end-user"))], me
    items, link = [], f"{UPSTREAM}/api/pages"
    while link:
        _, page = curl(user, link)
        items, link = items + page["items"], page["next"]
    assert items == [f"{login}-{n}" for n in range(3)], items
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 3_000_000)
        file.flush()
        status, sent = curl(user, "-T", file.name, f"{UPSTREAM}/api/upload")
        assert (status, sent["user"], sent["size"]) == (201, login, 3_000_000), sent
    assert curl(user, f"{UPSTREAM}/api/busy")[0] == 429
    assert curl(GONE, f"{UPSTREAM}/api/me") == (401, {"error": "invalid_token"})

    # The same by environment variable.
    proxy = ATTACHE.replace("//", f"//printer:{os.environ['CALLER_KEY']}@")
    status, me = run(["curl", "-H", f"X-End-User: {user}", f"{UPSTREAM}/api/me"], env={"http_proxy": proxy, "no_proxy": ""})
    assert (status, me["user"]) == (200, login), me
    # Without the key, and with a wrong one.
    for wrong in ([], ["--proxy-user", "printer:wrong"]):
        status, told = run(["curl", "--proxy", ATTACHE, *wrong, "-H", f"X-End-User: {user}", f"{UPSTREAM}/api/me"])
        assert (status, told["type"]) == (403, "urn:attache:caller-refused"), told
    # No tunnel: what goes through one could not be attached to.
    tunnel = subprocess.run(["curl", "-sS", "--proxy", ATTACHE, "--proxytunnel", f"{UPSTREAM}/api/me"], capture_output=True, text=True, check=False)
    assert tunnel.returncode == 56 and "405" in tunnel.stderr, tunnel


for_each_user(test)
