"""Calls between a strict client and strict upstreams, with Attaché in the middle."""

import concurrent.futures
import hashlib
import shutil
import socket
import tempfile

import h11
import peers
from peers import BIG, StrictH2, StrictH11, call, certificate

ROUTES = """\
  - {{match: "/one/{{*rest}}", as: none, upstream: "http://127.0.0.1:{one}/one/{{rest}}"}}
  - {{match: "/two/{{*rest}}", as: none, upstream: "https://localhost:{two}/two/{{rest}}"}}
"""
CODED = [("Transfer-Encoding", "chunked")]


class Call:
    family = "peer"

    def __init__(self, name, method="GET", tail="a", fields=(), parts=(), trailers=(), status=200, check=None):
        self.name, self.method, self.tail, self.fields, self.parts, self.trailers, self.status = name, method, tail, fields, parts, trailers, status
        self.check = check or (lambda told, seen: [])

    def run(self, port, prefix, server):
        """Everything that is wrong with it."""
        mark = hashlib.sha256(self.name.encode()).hexdigest()[:10]
        try:
            told = call(port, self.method, f"/{prefix}/{mark}/{self.tail}", self.fields, self.parts, self.trailers)
        except (h11.RemoteProtocolError, OSError) as fault:
            return [f"{prefix}: the answer: {type(fault).__name__}: {fault}"]
        seen, body = server.find(mark.encode()), b"".join(self.parts)
        found = [] if told.status == self.status else [f"status {told.status}"]
        if len(seen) != 1:
            return [f"{prefix}: {fault}" for fault in [*found, f"{len(seen)} requests upstream"]]
        if seen[0].body != body or (told.status == 200 and told.header(b"x-digest") != hashlib.sha256(body).hexdigest().encode()):
            found.append(f"the body came as {len(seen[0].body)} bytes of {len(body)}, or another")
        found += [f"{name.decode()} went on: {seen[0].all(name)}" for name in (b"connection", b"keep-alive", b"upgrade", b"x-end-user", b"proxy-authorization") if seen[0].all(name)]
        if prefix == "two" and (seen[0].all(b"transfer-encoding") or seen[0].all(b"host")):
            found.append("HTTP/1.1's framing or Host in HTTP/2")
        return [f"{prefix}: {fault}" for fault in found + self.check(told, seen[0])]


def has_body(expected):
    return lambda told, seen: [] if told.body == expected else [f"an answer of {len(told.body)} bytes"]


def length_kept(told, seen):
    return [] if seen.all(b"content-length") == [b"5"] else [f"Content-Length: {seen.all(b'content-length')}"]


def no_trailers(told, seen):
    return [f"{name.decode()} went on as a trailer" for name, _ in seen.trailers]


def calls():
    big = [bytes([number % 251]) * 10_000 for number in range(40)]
    yield Call("GET", check=has_body(b"ok"))
    yield Call("HEAD", "HEAD", check=has_body(b""))
    yield Call("HEAD of a coded answer", "HEAD", "coded", check=has_body(b""))
    yield Call("POST with a length", "POST", fields=[("Content-Length", "5")], parts=[b"hello"], check=length_kept)
    yield Call("POST with a coding", "POST", fields=CODED, parts=[b"he", b"llo"])
    yield Call("POST of 400 KB with a length", "POST", fields=[("Content-Length", str(sum(map(len, big))))], parts=big)
    yield Call("POST of 400 KB with a coding", "POST", fields=CODED, parts=big)
    yield Call("POST without a body", "POST", fields=[("Content-Length", "0")])
    yield Call("GET with a coded body", "GET", fields=CODED, parts=[b"hello"])
    yield Call("GET with a length", "GET", fields=[("Content-Length", "5")], parts=[b"hello"], check=length_kept)
    yield Call("DELETE with a body", "DELETE", fields=[("Content-Length", "5")], parts=[b"hello"])
    yield Call("trailers", "POST", fields=[*CODED, ("Trailer", "X-Sum"), ("TE", "trailers")], parts=[b"hello"], trailers=[("X-Sum", "1")])
    yield Call("trailers that are not announced", "POST", fields=CODED, parts=[b"hello"], trailers=[("X-Sum", "1")])
    for name in ("X-End-User", "Authorization", "Content-Length", "Host", "X-Attache-Key", "Cookie"):
        yield Call(f"a trailer that is removed: {name}", "POST", fields=[*CODED, ("Trailer", name), ("TE", "trailers")], parts=[b"hello"], trailers=[(name, "5")], check=no_trailers)
    yield Call("204", tail="204", status=204, check=has_body(b""))
    yield Call("304", tail="304", status=304, check=has_body(b""))
    yield Call("a large answer", tail="big", check=has_body(b"b" * BIG))
    yield Call("a coded answer", tail="coded", check=has_body(b"coded"))
    yield Call("an answer with trailers", tail="trailed/coded", check=has_body(b"coded"))
    yield Call("early hints", tail="early-hints", check=has_body(b"ok"))
    yield Call("a long target", tail="a" * 8000)
    yield Call("a long query", tail="a?" + "b=c&" * 2000 + "d")
    yield Call("a header of 20 KB", fields=[("X-A", "a" * 20_000)])
    yield Call("90 headers", fields=[(f"X-A{number}", "1") for number in range(80)])
    yield Call("headers of one name", fields=[("X-A", "1"), ("x-a", "2"), ("X-a", "3")], check=lambda told, seen: [] if seen.all(b"x-a") == [b"1", b"2", b"3"] else [f"{seen.all(b'x-a')}"])
    yield Call("an empty header", fields=[("X-A", "")], check=lambda told, seen: [] if seen.all(b"x-a") == [b""] else ["it is gone"])
    yield Call("obs-text", fields=[("X-A", b"\xe9\xff")], check=lambda told, seen: [] if seen.all(b"x-a") == [b"\xe9\xff"] else ["it is gone"])
    yield Call("Connection names headers", fields=[("Connection", "X-A, close"), ("X-A", "1"), ("X-B", "2")], check=lambda told, seen: ["it went on"] if seen.all(b"x-a") or not seen.all(b"x-b") else [])
    yield Call("all hop-by-hop headers", fields=[("Connection", "keep-alive, Upgrade, TE"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"), ("TE", "trailers, deflate"), ("Proxy-Authorization", "Basic eA==")])
    yield Call("TE: trailers", fields=[("Connection", "TE"), ("TE", "trailers")])
    yield Call("an odd method", "FOO-BAR")
    yield Call("PATCH", "PATCH", fields=CODED, parts=[b"x"] * 50)
    yield Call("OPTIONS", "OPTIONS")
    yield Call("cookies", fields=[("Cookie", "a=b"), ("Cookie", "c=d")], check=lambda told, seen: ["it went on"] if seen.all(b"cookie") else [])


def suite(start):
    """`start(routes, env)` gives an Attaché. Rows of the table, and the faults as (case, text)."""
    folder = tempfile.mkdtemp(prefix="attache-peers-")
    try:
        ca, leaf, key = certificate(folder)
        one, two = peers.StrictH11(), StrictH2(leaf, key)
        ours = start(ROUTES.format(one=one.port, two=two.port), {"SSL_CERT_FILE": ca})
        try:
            return judge(ours, one, two)
        finally:
            ours.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge(ours, one, two):
    cases, rows, found = list(calls()), [], []
    jobs = [(case, prefix, server) for case in cases for prefix, server in (("one", one), ("two", two))]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda job: job[0].run(ours.port, job[1], job[2]), jobs))
    for (case, prefix, _), faults in zip(jobs, done):
        rows.append([case.name, "h11" if prefix == "one" else "h2", "; ".join(faults) or "ok"])
        found += [(case, fault) for fault in faults]
    for name, work in ALONE.items():
        try:
            faults = work(ours, two)
        except (h11.RemoteProtocolError, OSError) as fault:
            faults = [f"{type(fault).__name__}: {fault}"]
        rows.append([name, "h2", "; ".join(faults) or "ok"])
        found += [(Call(name), fault) for fault in faults]
    for name, server in (("h11", one), ("h2", two)):
        found += [(None, f"{name} as upstream: {fault}") for fault in server.faults]
    return rows, found


def together(work, count=24):
    def guarded(number):
        try:
            return work(number)
        except (h11.RemoteProtocolError, OSError) as fault:
            return [f"call {number}: {type(fault).__name__}: {fault}"]

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [fault for faults in pool.map(guarded, range(count)) for fault in faults]


def changed_settings(ours, _):
    def one(number):
        tail = ("settings", "big", "a")[number % 3]
        told = call(ours.port, "POST", f"/two/settings-{number}/{tail}", CODED, [b"x" * 3000])
        return [] if told.status == 200 else [f"status {told.status}"]

    return together(one)


def goaway(ours, _):
    """The upstream says that it takes no more, and closes; the next call comes while that is on its way, or after it."""
    found = []
    for number in range(6):
        told = call(ours.port, "GET", f"/two/goaway-{number}/" + ("goaway" if number % 2 == 0 else "a"))
        found += [] if told.status == 200 else [f"call {number}: status {told.status}"]
    return found


def excluded(ours, _):
    """A call in flight that GOAWAY leaves out is sent again on another connection, for the upstream has not looked at it."""
    before = call(ours.port, "GET", "/two/exclude-0/a")
    told = call(ours.port, "GET", "/two/exclude-1/excluded")
    return [] if (before.status, told.status) == (200, 200) else [f"status {before.status}, then {told.status}"]


def hang_up(ours, two):
    """Clients that go amid a large answer or their own body: the streams end, and the shared connection serves the next call."""
    for number in range(12):
        with socket.create_connection(("127.0.0.1", ours.port), timeout=10) as stream:
            if number % 2:
                stream.sendall(f"GET /two/hang-{number}/big HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                stream.recv(1000)
            else:
                stream.sendall(f"POST /two/hang-{number}/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nhello".encode())
    told = call(ours.port, "GET", "/two/after-hang/a")
    whole = [seen for seen in two.find(b"/hang-") if seen.method == b"POST"]
    return ([] if told.status == 200 else [f"status {told.status}"]) + [f"a cut body came as a whole one: {seen.target}" for seen in whole]


def refused(ours, _):
    """REFUSED_STREAM says that nothing was done (RFC 9113 §8.7): the call is sent again, and so is the next one."""
    told = call(ours.port, "GET", "/two/refuse-1/refused")
    after = call(ours.port, "GET", "/two/refuse-2/a")
    return [] if (told.status, after.status) == (200, 200) else [f"status {told.status}, then {after.status}"]


ALONE = {
    "settings that change amid calls": changed_settings, "clients that hang up": hang_up, "GOAWAY between calls": goaway,
    "GOAWAY that leaves a call out": excluded, "a stream refused": refused,
}
