"""What the emulators share: an HTTP/1.1 server that knows a caller by their bearer token, counts what it saw, and notes what should never have come."""

import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from people import GONE, LOGINS, PEOPLE


class Request:
    def __init__(self, handler, body):
        self.method = handler.command
        self.path, _, query = handler.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.headers = handler.headers
        self.body = body
        scheme, _, token = handler.headers.get("Authorization", "").partition(" ")
        self.scheme = scheme.lower()
        self.user = LOGINS.get(token.strip()) if self.scheme in ("bearer", "token") else None

    def json(self):
        return json.loads(self.body or b"{}")

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))

    def file(self):
        """The one file of a multipart/form-data body."""
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        parts = [part for part in self.body.split(b"--" + boundary) if b"filename" in part.split(b"\r\n\r\n")[0]]
        return parts[0].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


class Answer:
    """`body`: bytes as they are, anything else as JSON."""

    def __init__(self, status=200, body=b"", **headers):
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            self.headers.setdefault("Content-Type", "application/json")
        self.body = body


class Api:
    """A subclass has `answer(request)` and `refuse(request)`, which is its own 401."""

    def __init__(self):
        self.calls = []
        self.faults = []
        self.store = {}
        self.tried = set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one write an answer

            def log_message(self, *_):
                pass

            def handle_any(self):
                request = Request(self, read_body(self))
                answer = api.handle(request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status not in (204, 304):
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if request.method != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.origin = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, request):
        self.note_what_should_not_come(request.headers.items(), f"{request.method} {request.path}")
        self.calls.append((request.user, request.method, request.path))
        if request.user is None:
            return self.refuse(request)
        return self.answer(request)

    def note_what_should_not_come(self, headers, call):
        for name, value in headers:
            if name.lower().startswith(("x-end-user", "x-attache", "proxy-")) or any(person in value for person in [*PEOPLE, GONE]):
                self.faults.append(f"{call} came with {name}: {value}")

    def first(self, *what):
        """Whether this is asked for the first time."""
        known = what in self.tried
        self.tried.add(what)
        return not known

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def read_body(handler):
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    body = b""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass
    return body
