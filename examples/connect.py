#!/usr/bin/env python3
"""PrintPixie with a "Connect your photos" button: a web app whose end users connect their accounts through Attaché.

It holds no client secret, no redirect handler for OAuth and no token: it asks Attaché for a link, sends the browser there, and says at the end
who it was that came back. docs/connect.md explains the part between the two markers.

    attache dev                                                          in one terminal; it prints the folder of its route map
    ATTACHE_ADMIN_TOKEN_FILE=FOLDER/attache.admin-token connect.py       in another; then open http://localhost:3000

Environment: ATTACHE_URL (http://localhost:7070), ATTACHE_ADMIN_URL (http://127.0.0.1:7072), ATTACHE_ADMIN_TOKEN or ATTACHE_ADMIN_TOKEN_FILE
(attache.admin-token), PORT (3000; its origin must be among `connect.allowed_return_urls`), PROVIDER (sandbox).
"""

import html
import http.cookies
import http.server
import json
import os
import pathlib
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request

ATTACHE_URL = os.environ.get("ATTACHE_URL", "http://localhost:7070")
ATTACHE_ADMIN_URL = os.environ.get("ATTACHE_ADMIN_URL", "http://127.0.0.1:7072")
TOKEN_FILE = os.environ.get("ATTACHE_ADMIN_TOKEN_FILE", "attache.admin-token")
PORT = int(os.environ.get("PORT", "3000"))
APP_URL = f"http://localhost:{PORT}"
PROVIDER = os.environ.get("PROVIDER", "sandbox")
# No proxies: an HTTP_PROXY in the environment is not meant for a call to this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# The app's own logins, by the random value of its cookie: {"user": …, "connecting": …}. A real app has these already.
LOGINS = {}


def admin_token():
    return os.environ.get("ATTACHE_ADMIN_TOKEN") or pathlib.Path(TOKEN_FILE).read_text().strip()


# --- the connect flow: docs/connect.md quotes from here ---
def connect(login):
    """POST /connect: the end user pressed the button. Answers where to redirect the browser to."""
    made = attache("/v1/connect-sessions", {
        "end_user": login["user"], "providers": [PROVIDER], "complete": "app", "return_url": APP_URL + "/connected"})
    login["connecting"] = made["session"]
    return made["connect_url"]


def connected(login, query):
    """GET /connected: the browser is back. The user is the one who is logged in now, whatever the URL says."""
    session = login.pop("connecting", None)
    if session and query.get("status") == "connected":
        attache(f"/v1/connect-sessions/{session}/complete", {"completion": query.get("completion"), "end_user": login["user"]})
    return "/"


def attache(path, body):
    headers = {"Authorization": f"Bearer {admin_token()}", "Content-Type": "application/json"}
    request = urllib.request.Request(ATTACHE_ADMIN_URL + path, json.dumps(body).encode(), headers)
    return json.load(OPENER.open(request, timeout=60))
# --- to here ---


def photos(user):
    """The names of the end user's photos, by the proxy; None if they must connect, for the first time or again."""
    request = urllib.request.Request(ATTACHE_URL + "/photos", headers={"X-End-User": user})
    try:
        with OPENER.open(request, timeout=60) as answer:
            return [photo["name"] for photo in json.load(answer)["items"]]
    except urllib.error.HTTPError as error:
        if error.code == 401 and error.headers.get("Proxy-Status", "").startswith("attache;"):
            return None
        raise


def home(login, said):
    if login is None:
        return '<form method="post" action="/login"><input name="user" value="alex@personalemail.com"><button>Log in</button></form>'
    page = f"<p>{html.escape(said)}</p><p>You are {html.escape(login['user'])}.</p>"
    names = photos(login["user"])
    if names is None:
        return page + '<form method="post" action="/connect"><button>Connect your photos</button></form>'
    return page + "<h2>Your photos</h2><ul>" + "".join(f"<li>{html.escape(name)}</li>" for name in names) + "</ul>"


SAID = {"denied": "You did not allow it. Nothing was connected.", "failed": "That did not work. Please try again."}


class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.serve(self.get)

    def do_POST(self):
        self.serve(self.post)

    def serve(self, page):
        try:
            page()
        except urllib.error.URLError as error:
            # An HTTPError is one too; its body says what was wrong (docs/errors.md).
            why = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
            print(f"a call to Attaché failed: {why}", file=sys.stderr, flush=True)
            self.answer(502, "PrintPixie could not reach its services. Please try again.")

    def get(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        login = self.login()
        if path == "/":
            self.answer(200, home(login, SAID.get(query.get("said"), "")))
        elif path == "/connected" and login is None:
            self.see("/")
        elif path == "/connected":
            status = query.get("status")
            self.see(connected(login, query) + (f"?said={status}" if status in SAID else ""))
        else:
            self.answer(404, "Nothing is here.")

    def post(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()))
        login = self.login()
        if self.path == "/login" and form.get("user"):
            key = secrets.token_urlsafe(32)
            LOGINS[key] = {"user": form["user"]}
            # Lax, not Strict: the browser comes back from another site, and must send the cookie then.
            self.see("/", {"Set-Cookie": f"printpixie={key}; HttpOnly; SameSite=Lax; Path=/"})
        elif self.path == "/connect" and login:
            self.see(connect(login))
        else:
            self.answer(404, "Nothing is here.")

    def login(self):
        cookie = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get("printpixie")
        return LOGINS.get(cookie.value) if cookie else None

    def see(self, url, headers=None):
        self.answer(303, "", {"Location": url, **(headers or {})})

    def answer(self, status, body, headers=None):
        body = f"<!doctype html><meta charset=utf-8><title>PrintPixie</title><h1>PrintPixie</h1>{body}".encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *args):
        # Without the query: it holds the completion code.
        print(self.command, self.path.partition("?")[0], args[1] if len(args) > 1 else "", flush=True)


if __name__ == "__main__":
    admin_token()
    print(f"PrintPixie is at {APP_URL}", flush=True)
    try:
        http.server.ThreadingHTTPServer(("127.0.0.1", PORT), App).serve_forever()
    except KeyboardInterrupt:
        pass
