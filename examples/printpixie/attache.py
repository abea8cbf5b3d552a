"""All that PrintPixie knows of Attaché: calls in an end user's name, and three admin calls. Standard library only, and no token in sight."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request

PROXY_URL = os.environ.get("ATTACHE_URL", "http://localhost:7070")
ADMIN_URL = os.environ.get("ATTACHE_ADMIN_URL", "http://127.0.0.1:7072")
ADMIN_TOKEN = os.environ.get("PRINTPIXIE_ADMIN_TOKEN", "")
TIMEOUT_S = 60
# No proxies: an HTTP_PROXY in the environment is not meant for a call to this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Problem(Exception):
    """A call that failed. `name` is that of docs/errors.md where Attaché itself answered, and `None` where the drive did, or nobody."""

    def __init__(self, name, detail, request_id=None, status=None):
        super().__init__(f"{name or 'the drive'}: {detail} (request {request_id})")
        self.name, self.request_id, self.status = name, request_id, status

    @property
    def must_connect(self):
        """What the end user alone can mend, or `None`."""
        return self.name if self.name in ("not-connected", "reconnect-required") else None


def get(path, user):
    """An open answer to read from. Every call to every drive is this one."""
    request = urllib.request.Request(PROXY_URL + path, headers={"X-End-User": user})
    try:
        return send(request)
    except Problem as problem:
        # A 401 of the drive's own: it no longer takes a token that was good until then. From the next call on Attaché says what became of it.
        if problem.name is None and problem.status == 401:
            return send(request)
        raise


def connect(user, drive, return_url):
    """A link for this end user's browser alone, and the session to complete once it is back."""
    made = admin("POST", "/v1/connect-sessions", {"end_user": user, "providers": [drive], "complete": "app", "return_url": return_url})
    return made["connect_url"], made["session"]


def complete(session, completion, user):
    """Says who came back. Until then no call can use the connection, so a link that was forwarded joins nobody's drive to another's name."""
    return admin("POST", f"/v1/connect-sessions/{session}/complete", {"completion": completion, "end_user": user})


def disconnect(user, drive):
    """Deletes the connection, and revokes it at the drive: `revoked` says whether that worked."""
    return admin("DELETE", f"/v1/connections/{quote(drive)}/{quote(user)}")


def quote(text):
    return urllib.parse.quote(text, safe="")


def admin(method, path, body=None):
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with send(urllib.request.Request(ADMIN_URL + path, data, headers, method=method)) as answer:
        return json.load(answer)


def send(request):
    try:
        return OPENER.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
        if error.headers.get_content_type() == "application/problem+json":
            problem = json.loads(body)
            if problem["type"].startswith("urn:attache:"):
                raise Problem(problem["type"].removeprefix("urn:attache:"), problem.get("detail"), problem.get("instance"), error.code) from None
        raise Problem(None, f"answered {error.code}", error.headers.get("X-Request-Id"), error.code) from None
    except urllib.error.URLError as error:
        raise Problem(None, f"Attaché does not answer: {error.reason}") from None
