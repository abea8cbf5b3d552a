"""HTTP/2 requests, sound and malformed (RFC 9113 §8), and what could become two requests in HTTP/1.1 (downgrade smuggling)."""

from case import ALL, DENY, EITHER, HOST, PREFIX, REFUSE, SMUGGLED, Case
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

PATH = PREFIX + b"a"
A, HELLO = [(b"a", b"")], [(b"a", b"hello")]
LINES = b"x\r\n\r\n" + SMUGGLED


class H2Case(Case):
    """`fields` replace the usual ones; `data` are the DATA frames' contents; `raw` makes frames of its own from the peer."""

    def __init__(self, family, name, may, through=(), fields=None, data=None, trailers=None, raw=None):
        super().__init__(family, name, b"", may, through)
        self.fields, self.parts, self.trailers, self.raw = fields or usual(), data, trailers, raw


def usual(method=b"GET", path=PATH, authority=b"localhost", scheme=b"http", more=()):
    pseudo = [(b":method", method), (b":scheme", scheme), (b":path", path), (b":authority", authority)]
    return [(name, value) for name, value in pseudo if value is not None] + [(b"x-end-user", b"megan"), *more]


def post(*more):
    return usual(b"POST", more=more)


def cases():
    return [*sound(), *pseudo_headers(), *lengths(), *fields(), *downgrades(), *trailers(), *framing()]


def sound():
    family = "h2 sound"
    yield H2Case(family, "GET", ALL, A)
    yield H2Case(family, "HEAD", ALL, A, usual(b"HEAD"))
    yield H2Case(family, "POST", ALL, HELLO, post(), [b"hello"])
    yield H2Case(family, "POST with a length", ALL, HELLO, post((b"content-length", b"5")), [b"hello"])
    yield H2Case(family, "POST in ten frames", ALL, [(b"a", b"hello" * 10)], post(), [b"hello"] * 10)
    yield H2Case(family, "POST with empty frames", ALL, HELLO, post(), [b"", b"he", b"", b"llo", b""])
    yield H2Case(family, "POST without a body", ALL, A, post())
    yield H2Case(family, "DELETE with a body", ALL, HELLO, usual(b"DELETE"), [b"hello"])
    yield H2Case(family, "GET with a body", ALL, HELLO, usual(), [b"hello"])
    yield H2Case(family, "GET with a length and a body", ALL, HELLO, usual(more=[(b"content-length", b"5")]), [b"hello"])
    yield H2Case(family, "a body that holds a request", ALL, [(b"a", SMUGGLED)], post(), [SMUGGLED])
    yield H2Case(family, "a body that holds chunks", ALL, [(b"a", b"0\r\n\r\n" + SMUGGLED)], post(), [b"0\r\n\r\n" + SMUGGLED])
    yield H2Case(family, "TE: trailers", ALL, A, usual(more=[(b"te", b"trailers")]))
    yield H2Case(family, "trailers", ALL, HELLO, post(), [b"hello"], [(b"x-sum", b"1")])
    yield H2Case(family, "cookies in crumbs", ALL, A, usual(more=[(b"cookie", b"a=b"), (b"cookie", b"c=d")]))
    yield H2Case(family, "a Host that agrees", EITHER, A, usual(more=[(b"host", b"localhost")]))


def pseudo_headers():
    family = "h2 pseudo-header"
    for name in (b":method", b":scheme", b":path"):
        yield H2Case(family, f"no {name.decode()}", REFUSE, (), [field for field in usual() if field[0] != name])
    for name, value in usual()[:4]:
        yield H2Case(family, f"{name.decode()} twice", REFUSE, (), [(name, value), *usual()])
        yield H2Case(family, f"{name.decode()} empty", REFUSE, (), [(found, b"" if found == name else kept) for found, kept in usual()])
    yield H2Case(family, "behind a header", REFUSE, (), [*usual()[:3], (b"x-a", b"1"), usual()[3]])
    for name in (b":status", b":foo", b":", b":Path"):
        yield H2Case(family, f"{name.decode()} besides", REFUSE, (), [*usual()[:4], (name, b"200"), (b"x-a", b"1")])
    yield H2Case(family, ":authority is another host", DENY, (), usual(authority=b"evil.example"))
    yield H2Case(family, ":authority is another host, Host is not", DENY, (), usual(authority=b"evil.example", more=[(b"host", b"localhost")]))
    yield H2Case(family, "Host is another than :authority", DENY, (), usual(more=[(b"host", b"evil.example")]))
    yield H2Case(family, "two Hosts", DENY, (), usual(more=[(b"host", b"localhost"), (b"host", b"evil.example")]))
    yield H2Case(family, "Host in place of :authority", EITHER, A, usual(authority=None, more=[(b"host", b"localhost")]))
    yield H2Case(family, "a foreign Host in place of :authority", DENY, (), usual(authority=None, more=[(b"host", b"evil.example")]))
    yield H2Case(family, "neither Host nor :authority", DENY, (), usual(authority=None))
    yield H2Case(family, "userinfo in :authority", DENY, (), usual(authority=b"user@localhost"))
    yield H2Case(family, ":scheme https without TLS", EITHER, A, usual(scheme=b"https"))
    yield H2Case(family, ":scheme ftp", EITHER, A, usual(scheme=b"ftp"))
    yield H2Case(family, "CONNECT", DENY, (), [(b":method", b"CONNECT"), (b":authority", b"localhost:80")])
    yield H2Case(family, "CONNECT with a path", DENY, (), usual(b"CONNECT"))
    yield H2Case(family, "extended CONNECT that was not offered", DENY, (), [*usual(b"CONNECT")[:4], (b":protocol", b"websocket")])
    yield H2Case(family, ":protocol on a GET", REFUSE, (), [*usual()[:4], (b":protocol", b"websocket")])
    yield H2Case(family, "OPTIONS *", EITHER, A, usual(b"OPTIONS", b"*"))


def lengths():
    """RFC 9113 §8.1.1: the sum of DATA must be the length; nothing that says otherwise may be whole upstream."""
    def length(value):
        return post((b"content-length", value))

    family = "h2 content-length"
    bad = {"longer than the body": (b"10", [b"hello"]), "shorter than the body": (b"3", [b"hello"]), "and no body": (b"5", None), "hides a request": (b"5", [b"hello" + SMUGGLED]),
           "+5": (b"+5", [b"hello"]), "-1": (b"-1", [b"hello"]), "0x5": (b"0x5", [b"hello"]), "empty": (b"", [b"hello"]), "2^64 + 5": (b"18446744073709551621", [b"hello"]), "5, 6": (b"5, 6", [b"hello"])}
    for name, (value, data) in bad.items():
        yield H2Case(family, name, REFUSE, (), length(value), data)
    # The head alone is a whole request, and may be gone before the DATA comes.
    yield H2Case(family, "zero and a body", EITHER, A, length(b"0"), [b"hello"])
    yield H2Case(family, "5 and 6", REFUSE, (), post((b"content-length", b"5"), (b"content-length", b"6")), [b"hello"])
    yield H2Case(family, "6 and 5", REFUSE, (), post((b"content-length", b"6"), (b"content-length", b"5")), [b"hello"])
    yield H2Case(family, "5 twice", EITHER, HELLO, post((b"content-length", b"5"), (b"content-length", b"5")), [b"hello"])
    yield H2Case(family, "a list 5, 5", EITHER, HELLO, length(b"5, 5"), [b"hello"])
    yield H2Case(family, "005", EITHER, HELLO, length(b"005"), [b"hello"])
    yield H2Case(family, "longer than the body, with trailers", REFUSE, (), length(b"10"), [b"hello"], [(b"x-sum", b"1")])
    yield H2Case(family, "of a GET and no body", REFUSE, (), usual(more=[(b"content-length", b"5")]))


def fields():
    family = "h2 header"
    for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
        value = {b"transfer-encoding": b"chunked", b"upgrade": b"websocket", b"connection": b"close"}.get(name, b"x")
        yield H2Case(family, name.decode(), REFUSE, (), usual(more=[(name, value)]))
    te = (b"transfer-encoding", b"chunked")
    yield H2Case(family, "transfer-encoding with chunks that hide a request", REFUSE, (), post(te), [b"0\r\n\r\n" + SMUGGLED])
    yield H2Case(family, "transfer-encoding and a length", REFUSE, (), post((b"content-length", b"%d" % (5 + len(SMUGGLED))), te), [b"0\r\n\r\n" + SMUGGLED])
    yield H2Case(family, "transfer-encoding in capitals", REFUSE, (), post((b"Transfer-Encoding", b"chunked")), [b"0\r\n\r\n" + SMUGGLED])
    yield H2Case(family, "transfer-encoding: identity", REFUSE, (), post((b"transfer-encoding", b"identity")), [b"hello"])
    yield H2Case(family, "te: gzip", REFUSE, (), usual(more=[(b"te", b"gzip")]))
    yield H2Case(family, "te: trailers, chunked", EITHER, A, usual(more=[(b"te", b"trailers, chunked")]))
    yield H2Case(family, "http2-settings", EITHER, A, usual(more=[(b"http2-settings", b"AAMAAABk")]))
    for name in (b"X-A", b"x-A", b"x a", b"x\0a", b"x\r\na", b"x:a", b"", b" x", b"x ", b"x\t", b"x\x7fa", b"x\xe9", b"x(a", b"x\na"):
        yield H2Case(family, f"name {name!r}", REFUSE, (), usual(more=[(name, b"1")]))
    for value in (b"a\r\nb", b"a\nb", b"a\rb", b"a\0b", b"\r\n\r\n" + SMUGGLED, b"a\r", b"a\n", b"\na", b"a\x01b", b"a\x7fb"):
        yield H2Case(family, f"value {value[:12]!r}", REFUSE, (), usual(more=[(b"x-a", value)]))
    for value in (b" a", b"a ", b"\ta", b"a\xe9\xff"):
        yield H2Case(family, f"value {value!r}", EITHER, A, usual(more=[(b"x-a", value)]))
    yield H2Case(family, "10,000 fields", EITHER, A, usual(more=[(b"x-a", b"1")] * 10_000))
    yield H2Case(family, "a list of 1 MiB", EITHER, A, usual(more=[(b"x-%d" % number, b"a" * 10_000) for number in range(100)]))
    yield H2Case(family, "a repeated end user", EITHER, A, usual(more=[(b"x-end-user", b"bob")]))


def downgrades():
    """What an HTTP/1.1 request would be torn apart by, in the parts that become its first line and its Host."""
    family = "h2 downgrade"
    for tail in (b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED, b"\r\nX-A: 1", b"\nx", b"\rx", b"\0x", b" x", b" HTTP/1.1", b"\tx", b"\x7f"):
        yield H2Case(family, f":path with {tail[:12]!r}", REFUSE, (), usual(path=PATH + tail))
    for path in (b"any/x", b"\r\n", b" ", b" " + PATH, b"\\", b"http://evil.example" + PATH, b"//evil.example" + PATH, b"@evil.example/", b":80/", b"?" + PATH):
        yield H2Case(family, f":path is {path[:24]!r}", DENY, (), usual(path=path))
    yield H2Case(family, ":path with a fragment", EITHER, A, usual(path=PATH + b"#b"))
    yield H2Case(family, ":path with dot segments", DENY, (), usual(path=PREFIX + b"../../a"))
    yield H2Case(family, ":path with encoded dot segments", DENY, (), usual(path=PREFIX + b"%2e%2e/a"))
    for method in (b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, b"GET\r\n", b"GET\n", b"GET ", b" GET", b"GE T", b"G\0T", b"GET\t", b"G(T", b"GET:", b"\xe9"):
        yield H2Case(family, f":method is {method[:12]!r}", REFUSE, (), usual(method))
    for authority in (b"localhost\r\nX-A: 1", b"localhost\r\n\r\n" + SMUGGLED, b"local host", b"localhost\0", b"localhost/x", b"localhost?x", b"localhost#x", b"localhost, evil.example", b"localhost\\x"):
        yield H2Case(family, f":authority is {authority[:20]!r}", DENY, (), usual(authority=authority))
    for scheme in (b"http://evil.example/x?", b"http\r\nX-A: 1", b"http ", b"ht tp", b"http:", b"\0"):
        yield H2Case(family, f":scheme is {scheme[:12]!r}", DENY, (), usual(scheme=scheme))


def trailers():
    family = "h2 trailer"
    for name, lines in {"Content-Length": [(b"content-length", b"5")], "Host": [(b"host", b"evil.example")], "X-End-User": [(b"x-end-user", b"bob")], "Authorization": [(b"authorization", b"Bearer forged")]}.items():
        yield H2Case(family, name, EITHER, HELLO, post(), [b"hello"], lines)
    for name in (b"content-length", b"host", b"authorization", b"x-end-user", b"x-attache-key", b"cookie"):
        value = b"5" if name == b"content-length" else b"bob"
        yield H2Case(family, f"{name.decode()}, announced", EITHER, HELLO, post((b"trailer", name), (b"te", b"trailers")), [b"hello"], [(name, value)])
    bad = {"a pseudo-header": [(b":path", b"/x")], "Transfer-Encoding": [(b"transfer-encoding", b"chunked")], "Connection": [(b"connection", b"close")], "capitals": [(b"X-A", b"1")],
           "CR LF in a value": [(b"x-a", b"1\r\n\r\n" + SMUGGLED)], "CR LF in a name": [(b"x-a: 1\r\nb", b"1")], "NUL in a value": [(b"x-a", b"\0")]}
    for name, lines in bad.items():
        yield H2Case(family, name, REFUSE, (), post(), [b"hello"], lines)
    yield H2Case(family, "without an end", EITHER, HELLO, raw=lambda peer, fields: [peer.headers(1, post_of(fields)), DataFrame(1, b"hello"), peer.headers(1, [(b"x-a", b"1")])])


def post_of(fields):
    return [(name, b"POST" if name == b":method" else value) for name, value in fields]


def framing():
    """Frames that no sound peer sends: an error of the stream or the connection, and nothing whole upstream (RFC 9113 §5, §6)."""
    def bad(name, raw, may=REFUSE, through=()):
        return H2Case("h2 frame", name, may, through, raw=raw)

    yield bad("DATA on stream 0", lambda peer, fields: [b"\0\0\5\0\1\0\0\0\0hello"])
    yield bad("DATA before HEADERS", lambda peer, fields: [DataFrame(1, b"hello", flags=["END_STREAM"])])
    yield bad("an even stream", lambda peer, fields: [peer.headers(2, fields, end=True)])
    yield bad("stream 0", lambda peer, fields: [b"\0\0\1\1\5\0\0\0\0\x82"])
    yield bad("CONTINUATION without HEADERS", lambda peer, fields: [ContinuationFrame(1, peer.encoder.encode(fields), flags=["END_HEADERS"])])
    yield bad("PING amid a header block", lambda peer, fields: [peer.headers(1, fields, end=True, more=True), PingFrame(0, b"12345678"), ContinuationFrame(1, b"", flags=["END_HEADERS"])])
    yield bad("another stream amid a header block", lambda peer, fields: [peer.headers(1, fields, more=True), peer.headers(3, fields, end=True)])
    yield bad("a frame of 1 MiB", lambda peer, fields: [peer.headers(1, post_of(fields)), b"\x10\0\0\0\1\0\0\0\1" + b"a" * 0x100000])
    yield bad("WINDOW_UPDATE of 0", lambda peer, fields: [b"\0\0\4\x08\0\0\0\0\0\0\0\0\0"])
    yield bad("a window over 2^31", lambda peer, fields: [WindowUpdateFrame(0, 0x7FFFFFFF), WindowUpdateFrame(0, 0x7FFFFFFF)])
    yield bad("SETTINGS of five bytes", lambda peer, fields: [b"\0\0\5\4\0\0\0\0\0hello"])
    yield bad("SETTINGS on a stream", lambda peer, fields: [b"\0\0\0\4\0\0\0\0\1"])
    yield bad("a window setting over 2^31", lambda peer, fields: [SettingsFrame(0, settings={4: 0x80000000})])
    yield bad("a frame size setting of 1", lambda peer, fields: [SettingsFrame(0, settings={5: 1})])
    yield bad("PING of four bytes", lambda peer, fields: [b"\0\0\4\6\0\0\0\0\0ping"])
    yield bad("RST_STREAM of an idle stream", lambda peer, fields: [RstStreamFrame(1, 8)])
    yield bad("PUSH_PROMISE from a client", lambda peer, fields: [peer.headers(1, fields, more=False), b"\0\0\5\5\4\0\0\0\1\0\0\0\2\x82"])
    yield bad("padding longer than the frame", lambda peer, fields: [peer.headers(1, post_of(fields)), b"\0\0\6\0\x09\0\0\0\1\x10hello"])
    yield bad("a header block that is no HPACK", lambda peer, fields: [HeadersFrame(1, b"\xff\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS", "END_STREAM"])])
    yield bad("an index that the table lacks", lambda peer, fields: [HeadersFrame(1, b"\xfe", flags=["END_HEADERS", "END_STREAM"])])
    yield bad("a table size over the limit", lambda peer, fields: [HeadersFrame(1, b"\x3f\xe1\xff\xff\x7f", flags=["END_HEADERS", "END_STREAM"])])
    yield bad("a stream that depends on itself", lambda peer, fields: [PriorityFrame(1, depends_on=1)], EITHER, A)
    yield bad("a lower stream than the last", lambda peer, fields: [peer.headers(5, fields, end=True), peer.headers(3, fields, end=True)], EITHER, A)
    yield bad("DATA behind the end", lambda peer, fields: [peer.headers(1, fields, end=True), DataFrame(1, SMUGGLED, flags=["END_STREAM"])], EITHER, A)
    yield bad("HEADERS behind the end", lambda peer, fields: [peer.headers(1, fields, end=True), peer.headers(1, fields, end=True)], EITHER, A)
    yield bad("HTTP/1.1 behind the preface", lambda peer, fields: [SMUGGLED])
    yield bad("an unknown frame before the request", lambda peer, fields: [b"\0\0\5\xbe\0\0\0\0\0hello", peer.headers(1, fields, end=True)], ALL, A)
