"""Requests in a row: pipelining, odd cuts, early errors with an unread body, `Expect` and `Upgrade`."""

from case import ALL, DENY, EITHER, HOST, NEXT, PREFIX, REFUSE, SMUGGLED, Case, post

HELLO = b"5\r\nhello\r\n0\r\n\r\n"
WRAPPED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
LENGTH = b"Content-Length: %d\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


def cases():
    return [*pipelines(), *cuts(), *early_errors(), *expectations(), *upgrades()]


def pipelines():
    kinds = {
        "GET": lambda n: (post(b"", b"", b"p%d" % n, method=b"GET"), b""),
        "HEAD": lambda n: (post(b"", b"", b"p%d" % n, method=b"HEAD"), b""),
        "POST with a length": lambda n: (post(LENGTH % 5, b"hello", b"p%d" % n), b"hello"),
        "POST with a coding": lambda n: (post(b"Transfer-Encoding: chunked\r\n", HELLO, b"p%d" % n), b"hello"),
        "POST that holds a request": lambda n: (post(LENGTH % len(SMUGGLED), SMUGGLED, b"p%d" % n), SMUGGLED),
        "DELETE with a body": lambda n: (post(LENGTH % 5, b"hello", b"p%d" % n, method=b"DELETE"), b"hello"),
        "GET with a body": lambda n: (post(LENGTH % 5, b"hello", b"p%d" % n, method=b"GET"), b"hello"),
        "GET with a coded body": lambda n: (post(b"Transfer-Encoding: chunked\r\n", HELLO, b"p%d" % n, method=b"GET"), b"hello"),
    }
    for count in range(2, 11):
        for name, kind in kinds.items():
            made = [kind(number) for number in range(count)]
            yield Case("pipeline", f"{count} × {name}", b"".join(data for data, _ in made), ALL, [(b"p%d" % number, body) for number, (_, body) in enumerate(made)])
        mixed = [list(kinds.values())[(number * 3 + count) % len(kinds)](number) for number in range(count)]
        yield Case("pipeline", f"{count} mixed", b"".join(data for data, _ in mixed), ALL, [(b"p%d" % number, body) for number, (_, body) in enumerate(mixed)])
    good = kinds["GET"](0)[0]
    bad = post(b"Transfer-Encoding: xchunked\r\n", HELLO + SMUGGLED)
    yield Case("pipeline", "a sound one, then a malformed one", good + bad, EITHER, [(b"p0", b"")])
    yield Case("pipeline", "a sound one, then garbage", good + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + SMUGGLED, EITHER, [(b"p0", b"")])


def cuts():
    """The same bytes, cut in two at every place: the same requests."""
    bodies = {
        "a length": post(LENGTH % 5, b"hello" + NEXT),
        "chunks": post(b"Transfer-Encoding: chunked\r\n", b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n" + NEXT),
    }
    for name, data in bodies.items():
        through = [(b"a", b"hello"), (b"next", b"")]
        yield Case("cut", f"{name}, byte by byte", data, ALL, through, list(range(1, len(data))))
        for place in range(1, len(data)):
            yield Case("cut", f"{name}, at {place}", data, ALL, through, [place])
    bad = post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", HELLO + SMUGGLED)
    for place in range(len(bad) - len(HELLO + SMUGGLED) - 40, len(bad) - len(SMUGGLED), 3):
        yield Case("cut", f"two codings, at {place}", bad, REFUSE, (), [place])
    fold = post(b"X-A: 1\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED)
    yield Case("cut", "a fold behind CRLF", fold, EITHER, [(b"a", b"")], [fold.index(b"\r\n Transfer") + 2])


def early_errors():
    """Attaché's own answer, or the upstream's, before the body was read: the rest of the body is no request, and the next one is."""
    family = "early error"
    outside = b"POST " + PREFIX + b"../x HTTP/1.1\r\n" + HOST
    nowhere = b"POST /nowhere HTTP/1.1\r\n" + HOST
    foreign = post(b"", b"").replace(b"Host: localhost", b"Host: evil.example")[:-2]
    for name, head in {"a bad path": outside, "no route": nowhere, "a foreign host": foreign}.items():
        then_next = [(b"next", b"")]
        yield Case(family, f"{name}, a body by length", head + LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED + NEXT, EITHER, then_next)
        yield Case(family, f"{name}, a coded body", head + b"Transfer-Encoding: chunked\r\n\r\n" + WRAPPED + NEXT, EITHER, then_next)
        yield Case(family, f"{name}, a body that is not whole", head + LENGTH % 100_000 + b"\r\n" + SMUGGLED, DENY)
        yield Case(family, f"{name}, a chunk that is not whole", head + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n" + SMUGGLED, DENY)
        large = b"x" * 300_000
        yield Case(family, f"{name}, a large body", head + LENGTH % (len(large) + len(SMUGGLED)) + b"\r\n" + large + SMUGGLED + NEXT, EITHER, then_next)
        whole = head + LENGTH % len(SMUGGLED) + b"\r\n" + SMUGGLED + NEXT
        yield Case(family, f"{name}, the body later", whole, EITHER, then_next, [len(head) + len(LENGTH % len(SMUGGLED)) + 2])
        yield Case(family, f"{name}, waiting for 100", head + LENGTH % len(SMUGGLED) + b"Expect: 100-continue\r\n\r\n" + SMUGGLED + NEXT, EITHER, then_next)
        bad_chunk = head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX" + SMUGGLED
        yield Case(family, f"{name}, a malformed body", bad_chunk, DENY)
    early = post(LENGTH % len(SMUGGLED), SMUGGLED + NEXT, b"early")
    yield Case(family, "of the upstream, a body by length", early, EITHER, [(b"early", SMUGGLED), (b"next", b"")])
    begun = early.index(SMUGGLED) + 10
    yield Case(family, "of the upstream, the body later", early, EITHER, [(b"early", SMUGGLED), (b"next", b"")], [begun - 10, begun])
    yield Case(family, "of the upstream, a coded body", post(b"Transfer-Encoding: chunked\r\n", WRAPPED + NEXT, b"early"), EITHER, [(b"early", SMUGGLED), (b"next", b"")])
    yield Case(family, "of the upstream, a body that is not whole", post(LENGTH % 100_000, SMUGGLED, b"early"), EITHER, [(b"early", b"")])


def expectations():
    through = [(b"a", b"hello"), (b"next", b"")]
    body = b"hello" + NEXT
    for name, value in {"100-continue": b"100-continue", "in capitals": b"100-CONTINUE", "unknown": b"200-ok", "two": b"100-continue, x", "empty": b"", "folded spaces": b"  100-continue  "}.items():
        yield Case("expect", name, post(LENGTH % 5 + b"Expect: " + value + b"\r\n", body), EITHER, through)
    yield Case("expect", "twice", post(LENGTH % 5 + b"Expect: 100-continue\r\n" * 2, body), EITHER, through)
    yield Case("expect", "with a coding", post(b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", HELLO + NEXT), EITHER, through)
    yield Case("expect", "a request in the body", post(LENGTH % len(SMUGGLED) + b"Expect: 100-continue\r\n", SMUGGLED + NEXT), EITHER, [(b"a", SMUGGLED), (b"next", b"")])
    # 0.CL: with no body there is nothing to wait for, and a GET's body counts as any other's.
    yield Case("expect", "without a body", post(b"Expect: 100-continue\r\n", NEXT), EITHER, [(b"a", b""), (b"next", b"")])
    for method in (b"GET", b"DELETE", b"HEAD", b"OPTIONS"):
        data = post(LENGTH % len(SMUGGLED) + b"Expect: 100-continue\r\n", SMUGGLED + NEXT, method=method)
        yield Case("expect", f"{method.decode()} with a body", data, EITHER, [(b"a", SMUGGLED), (b"next", b"")])
    old = post(LENGTH % 5 + b"Expect: 100-continue\r\n", b"hello", version=b"HTTP/1.0")
    yield Case("expect", "in HTTP/1.0", old, EITHER, [(b"a", b"hello")])
    early = post(LENGTH % len(SMUGGLED) + b"Expect: 100-continue\r\n", SMUGGLED + NEXT, b"early")
    yield Case("expect", "refused by the upstream", early, EITHER, [(b"early", SMUGGLED), (b"next", b"")])


def upgrades():
    """The recorder takes every upgrade that reaches it; on routes without `websocket` none may."""
    for name, fields in {"WebSocket": UPGRADE, "h2c": H2C, "h2c without its settings": H2C[: H2C.index(b"HTTP2-Settings: ")], "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"}.items():
        yield Case("upgrade", f"{name}, then a request", post(fields, NEXT, b"up", method=b"GET"), EITHER, [(b"up", b""), (b"next", b"")])
        yield Case("upgrade", f"{name}, a body, then a request", post(LENGTH % len(SMUGGLED) + fields, SMUGGLED + NEXT, b"up"), EITHER, [(b"up", SMUGGLED), (b"next", b"")])
        yield Case("upgrade", f"{name}, a coded body, then a request", post(b"Transfer-Encoding: chunked\r\n" + fields, WRAPPED + NEXT, b"up"), EITHER, [(b"up", SMUGGLED), (b"next", b"")])
    yield Case("upgrade", "not named by Connection", post(UPGRADE[len(b"Connection: Upgrade\r\n"):], NEXT, b"up", method=b"GET"), EITHER, [(b"up", b""), (b"next", b"")])
    yield Case("upgrade", "in HTTP/1.0", post(UPGRADE, SMUGGLED, b"up", b"HTTP/1.0", b"GET"), EITHER, [(b"up", b"")])
