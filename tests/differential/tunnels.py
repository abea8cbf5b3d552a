"""Upgrades on a route with `websocket: true`: a tunnel opens when the upstream says so, not before, and to nothing but WebSocket (THREATS 11)."""

from case import ALL, EITHER, HOST, NEXT, PREFIX, SMUGGLED, Case
from client import exchange
from judge import faults_of_request

KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
WEB = b"/web/"
ROUTE = """\
  - {match: "/web/{*rest}", as: none, websocket: true, upstream: "http://127.0.0.1:UPSTREAM/any/{rest}"}
"""


def ask(target=b"up", upgrade=b"websocket", fields=KEY, rest=b"", version=b"HTTP/1.1", method=b"GET"):
    line = method + b" " + PREFIX.replace(b"/any/", WEB) + target + b" " + version + b"\r\n"
    return line + HOST + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n" + fields + b"\r\n" + rest


def cases():
    """The tunnel may open for the first alone; `through` names requests as the upstream sees them."""
    next_one = NEXT.replace(b"/any/", WEB)
    yield Case("tunnel", "WebSocket", ask(), ALL, [(b"up", b"")])
    yield Case("tunnel", "WebSocket, a request behind it", ask(rest=SMUGGLED), ALL, [(b"up", b"")])
    yield Case("tunnel", "refused by the upstream, a request behind it", ask(b"not", rest=next_one), EITHER, [(b"not", b""), (b"next", b"")])
    yield Case("tunnel", "h2c", ask(upgrade=b"h2c", fields=b"HTTP2-Settings: AAMAAABk\r\n", rest=SMUGGLED), EITHER, [(b"up", b""), (b"smuggled", b"")])
    yield Case("tunnel", "h2c and WebSocket", ask(upgrade=b"h2c, websocket", rest=SMUGGLED), EITHER, [(b"up", b""), (b"smuggled", b"")])
    yield Case("tunnel", "TLS", ask(upgrade=b"TLS/1.0", fields=b"", rest=SMUGGLED), EITHER, [(b"up", b""), (b"smuggled", b"")])
    yield Case("tunnel", "in HTTP/1.0", ask(version=b"HTTP/1.0"), EITHER, [(b"up", b"")])
    yield Case("tunnel", "with a body", ask(fields=KEY + b"Content-Length: %d\r\n" % len(SMUGGLED), rest=SMUGGLED), EITHER, [(b"up", SMUGGLED)])
    yield Case("tunnel", "with a coding", ask(fields=KEY + b"Transfer-Encoding: chunked\r\n", rest=b"0\r\n\r\n" + SMUGGLED), EITHER, [(b"up", b""), (b"smuggled", b"")])
    yield Case("tunnel", "by POST", ask(method=b"POST", rest=SMUGGLED), EITHER, [(b"up", b""), (b"smuggled", b"")])


MAY_OPEN = {"WebSocket", "WebSocket, a request behind it", "with a body", "with a coding", "by POST", "in HTTP/1.0"}


def suite(ours):
    rows, found = [], []
    for number, case in enumerate(cases()):
        case_id = f"c{number:04}u"
        data = case.data.replace(b"@@@@@@", case_id.encode()).replace(b"/any/", WEB)
        outcome = exchange(ours.port, [data], patience_s=2)
        seen = ours.recorder.seen(case_id)
        # Targets as the upstream sees them, bodies as they were sent.
        meant = [(target, body.replace(b"/any/", WEB)) for target, body in case.meant(case_id)]
        of_case = [connection for connection in ours.recorder.connections if case_id in connection.cases]
        tunnels = [connection for connection in of_case if connection.tunnelled]
        said = [f"{request!r} was not meant" for request in seen if (request.target, request.body) not in meant]
        if case.may == ALL and len(seen) != len(meant):
            said.append(f"{len(seen)} requests of {len(meant)}; {outcome}")
        if tunnels and case.name not in MAY_OPEN:
            said.append("a tunnel opened")
        if case.name.startswith("WebSocket") and not outcome.raw.startswith(b"HTTP/1.1 101"):
            said.append(f"no tunnel: {outcome.raw[:100]!r}")
        said += [f"bytes went on before the upgrade was taken: {bytes(one.reader.buffer)!r}" for one in tunnels if one.reader.buffer]
        said += [f"not strictly well-formed: {one.reader.violation}" for one in of_case if one.reader.violation]
        for request in seen:
            said += [fault for fault in faults_of_request(request, b"/any/") if "connection" not in fault and "upgrade" not in fault]
        rows.append([case.name, outcome.raw.split(b"\r\n", 1)[0].decode("latin-1"), f"{len(seen)} requests", f"{len(tunnels)} tunnels", "; ".join(said)])
        found += [(case, fault) for fault in said]
    return rows, found
