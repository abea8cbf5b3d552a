"""Heads: line ends, header fields, request lines and Host (RFC 9112 §2 to §5)."""

from case import ALL, EITHER, HOST, ID, NEXT, PREFIX, REFUSE, SMUGGLED, Case, post

ONE = [(b"a", b"")]
BOTH = [(b"a", b""), (b"next", b"")]
TARGET = PREFIX + b"a"
NO_TOKEN = b'"(),/:;<=>?@[\\]{} \x7f\x80\xe9\xff' + bytes(range(1, 9)) + b"\x0b\x0c" + bytes(range(14, 32))


def cases():
    return [*line_ends(), *folds(), *fields(), *request_lines(), *targets(), *hosts()]


def get(line=None, fields=b"", rest=NEXT):
    return (line or b"GET " + TARGET + b" HTTP/1.1") + b"\r\n" + HOST + fields + b"\r\n" + rest


def line_ends():
    family = "line end"
    lf = get(rest=b"").replace(b"\r\n", b"\n")
    yield Case(family, "LF alone", lf + NEXT, EITHER, BOTH)
    yield Case(family, "LF behind the request line", get().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n", 1), EITHER, BOTH)
    yield Case(family, "LF behind a header", get(fields=b"X-A: 1\nX-B: 2\r\n"), EITHER, BOTH)
    yield Case(family, "LF at the head's end", get(rest=b"")[:-2] + b"\n" + NEXT, EITHER, BOTH)
    yield Case(family, "LF LF in a value", get(fields=b"X-A: 1\n\n" + SMUGGLED[:-2], rest=b"\r\n"), EITHER, [*ONE, (b"smuggled", b"")])
    yield Case(family, "a length behind LF", post(b"X-A: 1\nContent-Length: 5\r\n", b"hello" + NEXT), EITHER, [(b"a", b"hello"), (b"next", b"")])
    yield Case(family, "CR alone", get(rest=b"").replace(b"\r\n", b"\r") + SMUGGLED, REFUSE)
    yield Case(family, "CR behind a header", get(fields=b"X-A: 1\rX-B: 2\r\n", rest=SMUGGLED), REFUSE)
    yield Case(family, "CR behind the request line", get(rest=SMUGGLED).replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r", 1), REFUSE)
    yield Case(family, "CR CR LF", get(fields=b"X-A: 1\r\r\n", rest=SMUGGLED), REFUSE)
    yield Case(family, "CR at the head's end", get(rest=b"")[:-1] + SMUGGLED, REFUSE)
    yield Case(family, "LF CR", get(fields=b"X-A: 1\n\r", rest=SMUGGLED), REFUSE)
    for count in (1, 2, 5):
        yield Case(family, f"{count} CRLF before the request", b"\r\n" * count + get(), ALL if count == 1 else EITHER, BOTH)
        yield Case(family, f"{count} LF before the request", b"\n" * count + get(), EITHER, BOTH)
    yield Case(family, "CRLF between requests", get(rest=b"\r\n" + NEXT), EITHER, BOTH)
    yield Case(family, "CRLF behind a body", post(b"Content-Length: 5\r\n", b"hello\r\n" + NEXT), EITHER, [(b"a", b"hello"), (b"next", b"")])
    yield Case(family, "a CR before the request", b"\r" + get(rest=SMUGGLED), REFUSE)
    yield Case(family, "a space before the request", b" " + get(), EITHER, BOTH)
    yield Case(family, "a NUL before the request", b"\0" + get(rest=SMUGGLED), REFUSE)


def folds():
    family = "obs-fold"
    for name, white in {"a space": b" ", "a tab": b"\t", "two spaces": b"  "}.items():
        # RFC 9112 §5.2: a proxy refuses, or puts spaces in its place. The body must be what an unfolded reading makes of it.
        yield Case(family, f"by {name}", get(fields=b"X-A: 1\r\n" + white + b"2\r\n"), EITHER, BOTH)
        yield Case(family, f"by {name}, a length in it", post(b"X-A: 1\r\n" + white + b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED), EITHER, [(b"a", b""), (b"smuggled", b"")])
        yield Case(family, f"by {name}, a coding in it", post(b"X-A: 1\r\n" + white + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + NEXT), EITHER, [(b"a", b"0\r\n\r\n"), (b"next", b"")])
        line = b"GET " + TARGET + b" HTTP/1.1\r\n"
        yield Case(family, f"by {name}, before the first header", line + white + b"X-A: 1\r\n" + HOST + b"\r\n" + SMUGGLED, REFUSE)
        yield Case(family, f"by {name}, Host before the first header", line + white + b"Host: localhost\r\n" + HOST + b"\r\n" + SMUGGLED, REFUSE)
        yield Case(family, f"by {name}, in the length", post(b"Content-Length:\r\n" + white + b"5\r\n", b"hello" + NEXT), EITHER, [(b"a", b"hello"), (b"next", b"")])
        yield Case(family, f"by {name}, in the length's digits", post(b"Content-Length: 5\r\n" + white + b"0\r\n", b"hello" + SMUGGLED), REFUSE)
    yield Case(family, "LF and a space", get(fields=b"X-A: 1\n 2\r\n"), EITHER, BOTH)
    yield Case(family, "a line of spaces", get(fields=b"X-A: 1\r\n  \r\nX-B: 2\r\n"), EITHER, BOTH)


def fields():
    for byte in sorted(set(NO_TOKEN)):
        if byte != 0x3A:
            yield Case("header name", f"{byte:#04x} in it", get(fields=b"X-A" + bytes([byte]) + b"B: 1\r\n", rest=SMUGGLED), REFUSE)
    yield Case("header name", "0x00 in it", get(fields=b"X-A\0B: 1\r\n", rest=SMUGGLED), REFUSE)
    yield Case("header name", "empty", get(fields=b": 1\r\n", rest=SMUGGLED), REFUSE)
    yield Case("header name", "no colon", get(fields=b"nonsense\r\n", rest=SMUGGLED), REFUSE)
    yield Case("header name", "a space before it", get(fields=b" X-A: 1\r\n"), EITHER, BOTH)
    yield Case("header name", "a space behind it", get(fields=b"X-A : 1\r\n", rest=SMUGGLED), REFUSE)
    yield Case("header name", "a tab behind it", get(fields=b"X-A\t: 1\r\n", rest=SMUGGLED), REFUSE)
    yield Case("header name", "64 KiB", get(fields=b"X" * 65_536 + b": 1\r\n"), EITHER, BOTH)
    for byte in (0, *range(1, 9), 0x0B, 0x0C, *range(14, 32), 0x7F):
        yield Case("header value", f"{byte:#04x} in it", get(fields=b"X-A: a" + bytes([byte]) + b"b\r\n", rest=SMUGGLED), REFUSE)
    for name, value in {"empty": b"", "a tab": b"a\tb", "a colon first": b": a", "obs-text": b"a\xe9\xffb", "UTF-8": "é".encode(), "spaces alone": b"   "}.items():
        yield Case("header value", name, get(fields=b"X-A: " + value + b"\r\n"), EITHER if name.startswith(("obs", "UTF")) else ALL, BOTH)
    yield Case("header value", "no space before it", get(fields=b"X-A:1\r\n"), ALL, BOTH)
    yield Case("header value", "a request in it, percent-encoded", get(fields=b"X-A: 1%0d%0a%0d%0aGET%20/\r\n"), ALL, BOTH)
    yield Case("header value", "100 fields", get(fields=b"X-A: 1\r\n" * 95), EITHER, BOTH)
    yield Case("header value", "1,000 fields", get(fields=b"X-A: 1\r\n" * 1000), EITHER, BOTH)


def request_lines():
    family = "request line"
    between = {"two spaces": b"  ", "many spaces": b" " * 50, "a tab": b"\t", "a vertical tab": b"\x0b", "a form feed": b"\x0c", "a no-break space": b"\xa0", "a CR": b"\r"}
    for name, white in between.items():
        may = EITHER if b" " in white or white == b"\t" else REFUSE
        through = BOTH if may is EITHER else []
        rest = NEXT if may is EITHER else SMUGGLED
        yield Case(family, f"{name} behind the method", get(b"GET" + white + TARGET + b" HTTP/1.1", rest=rest), may, through)
        yield Case(family, f"{name} before the version", get(b"GET " + TARGET + white + b"HTTP/1.1", rest=rest), may, through)
    versions = {
        "none": b"", "HTTP/0.9": b" HTTP/0.9", "HTTP/2.0": b" HTTP/2.0", "HTTP/2": b" HTTP/2", "HTTP/3.0": b" HTTP/3.0", "http/1.1": b" http/1.1", "HTTP/1.1x": b" HTTP/1.1x", "HTTP/11": b" HTTP/11",
        "HTTP/01.1": b" HTTP/01.1", "HTTP/1.01": b" HTTP/1.01", "HTTP/1,1": b" HTTP/1,1", "HTTP 1.1": b" HTTP 1.1", "HTTP/1.": b" HTTP/1.", "HTTP/": b" HTTP/", "HTTP/+1.1": b" HTTP/+1.1",
        "XTTP/1.1": b" XTTP/1.1", "HTTPS/1.1": b" HTTPS/1.1", "HTTP/1.1 twice": b" HTTP/1.1 HTTP/1.1", "HTTP/1.1\\0": b" HTTP/1.1\0",
    }
    for name, version in versions.items():
        yield Case(family, f"version {name}", get(b"GET " + TARGET + version, rest=SMUGGLED), REFUSE)
    yield Case(family, "HTTP/0.9 without headers", b"GET " + TARGET + b"\r\n" + SMUGGLED, REFUSE)
    for name, version in {"HTTP/1.2": b" HTTP/1.2", "HTTP/1.9": b" HTTP/1.9", "HTTP/1.1 and a space": b" HTTP/1.1 ", "HTTP/1.1 and a tab": b" HTTP/1.1\t"}.items():
        yield Case(family, f"version {name}", get(b"GET " + TARGET + version), EITHER, BOTH)
    for byte in sorted(set(NO_TOKEN) - {0x20} | {0}):
        yield Case("method", f"{byte:#04x} in it", get(b"G" + bytes([byte]) + b"T " + TARGET + b" HTTP/1.1", rest=SMUGGLED), REFUSE)
    yield Case("method", "none", get(TARGET + b" HTTP/1.1", rest=SMUGGLED), REFUSE)
    yield Case("method", "a space in it", get(b"GE T " + TARGET + b" HTTP/1.1", rest=SMUGGLED), REFUSE)
    for name, method in {"get": b"get", "Get": b"Get", "unknown": b"FOOBAR", "a token of symbols": b"!#$%&'*+-.^_`|~", "1,000 letters": b"M" * 1000, "PRI": b"PRI", "TRACE": b"TRACE", "TRACK": b"TRACK"}.items():
        yield Case("method", name, get(method + b" " + TARGET + b" HTTP/1.1"), EITHER, BOTH)
    yield Case("method", "64 KiB", get(b"M" * 65_536 + b" " + TARGET + b" HTTP/1.1"), EITHER, BOTH)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield Case(family, "the preface of HTTP/2 behind a request", get(rest=preface + SMUGGLED), EITHER, ONE)


def targets():
    family = "target"
    def line(target, rest=NEXT, fields=b""):
        return get(b"GET " + target + b" HTTP/1.1", rest=rest, fields=fields)

    yield Case(family, "absolute form", line(b"http://localhost" + TARGET), EITHER, BOTH)
    yield Case(family, "absolute form with a port", line(b"http://localhost:80" + TARGET), EITHER, BOTH)
    yield Case(family, "absolute form of https", line(b"https://localhost" + TARGET), EITHER, BOTH)
    yield Case(family, "absolute form in capitals", line(b"HTTP://LOCALHOST" + TARGET), EITHER, BOTH)
    denied = {
        "absolute form of another host": b"http://evil.example" + TARGET, "absolute form with userinfo": b"http://user:pass@localhost" + TARGET, "absolute form with an empty host": b"http://" + TARGET,
        "absolute form of another scheme": b"file://localhost" + TARGET, "userinfo that looks like a host": b"http://localhost:80@evil.example" + TARGET,
    }
    for name, target in denied.items():
        yield Case(family, name, line(target), EITHER, [(b"next", b"")])
    yield Case(family, "authority form", line(b"localhost:80"), EITHER, [(b"next", b"")])
    yield Case(family, "CONNECT", get(b"CONNECT localhost:80 HTTP/1.1", rest=NEXT), EITHER, [(b"next", b"")])
    yield Case(family, "CONNECT with a path", get(b"CONNECT " + TARGET + b" HTTP/1.1"), EITHER, [(b"next", b"")])
    yield Case(family, "GET *", line(b"*"), EITHER, [(b"next", b"")])
    yield Case(family, "OPTIONS *", get(b"OPTIONS * HTTP/1.1"), EITHER, [(b"next", b"")])
    yield Case(family, "no slash", line(TARGET[1:], SMUGGLED), REFUSE)
    yield Case(family, "a fragment", line(TARGET + b"#b"), EITHER, BOTH)
    yield Case(family, "a fragment behind a query", line(TARGET + b"?b#c"), EITHER, [(b"a?b", b""), (b"next", b"")])
    yield Case(family, "a query", line(TARGET + b"?b=c&d"), ALL, [(b"a?b=c&d", b""), (b"next", b"")])
    yield Case(family, "a query in a query", line(TARGET + b"?b?c"), ALL, [(b"a?b?c", b""), (b"next", b"")])
    yield Case(family, "CR LF, percent-encoded", line(TARGET + b"%0d%0a" + b"x"), EITHER, [(b"a%0d%0ax", b""), (b"next", b"")])
    yield Case(family, "a space and a version, percent-encoded", line(TARGET + b"%20HTTP/1.1"), EITHER, [(b"a%20HTTP/1.1", b""), (b"next", b"")])
    for byte in (*range(1, 9), 0x0B, 0x0C, *range(14, 32), 0, 0x7F):
        yield Case(family, f"{byte:#04x} in it", line(TARGET + bytes([byte]) + b"x", SMUGGLED), REFUSE)
    for byte in (0xA0, 0xC3, 0xE9, 0xFF):
        yield Case(family, f"{byte:#04x} in it", line(TARGET + bytes([byte]) + b"x", SMUGGLED), REFUSE)
    yield Case(family, "UTF-8 in it", line(TARGET + "é".encode()), EITHER, [(b"a\xc3\xa9", b""), (b"next", b"")])
    yield Case(family, "UTF-8 in the query", line(TARGET + "?é".encode()), EITHER, [(b"a?\xc3\xa9", b""), (b"next", b"")])
    for byte in b'"<>^`{|}[]':
        yield Case(family, f"{bytes([byte]).decode()} in it", line(TARGET + bytes([byte]) + b"x"), EITHER, [(b"a" + bytes([byte]) + b"x", b""), (b"next", b"")])
    yield Case(family, "a space in it", line(TARGET + b" b", SMUGGLED), REFUSE)
    yield Case(family, "8 KiB", line(TARGET + b"x" * 8000), EITHER, [(b"a" + b"x" * 8000, b""), (b"next", b"")])


def hosts():
    def host(lines, rest=NEXT, version=b"HTTP/1.1"):
        return b"GET " + TARGET + b" " + version + b"\r\n" + lines + b"X-End-User: megan\r\n\r\n" + rest

    yield Case("host", "none", host(b""), EITHER, [(b"next", b"")])
    yield Case("host", "none in HTTP/1.0", host(b"", b"", b"HTTP/1.0"), EITHER, ONE)
    yield Case("host", "two that differ", host(b"Host: localhost\r\nHost: evil.example\r\n"), EITHER, [(b"next", b"")])
    yield Case("host", "the same twice", host(b"Host: localhost\r\nHost: localhost\r\n"), EITHER, [(b"next", b"")])
    bad = {"a comma": b"localhost, evil.example", "a path": b"localhost/x", "userinfo": b"user@localhost", "a space": b"local host", "a port of letters": b"localhost:http", "a tab": b"localhost\tx",
           "empty": b"", "a query": b"localhost?x", "a fragment": b"localhost#x", "two ports": b"localhost:80:80", "an underscore twin": b"localhost\r\nHost_: evil", "a backslash": b"localhost\\evil"}
    for name, value in bad.items():
        may_pass = name in ("an underscore twin", "a port of letters")
        yield Case("host", name, host(b"Host: " + value + b"\r\n"), EITHER, BOTH if may_pass else [(b"next", b"")])
    yield Case("host", "a space before the colon", host(b"Host : localhost\r\n", SMUGGLED), REFUSE)
    yield Case("host", "in the id's place", host(b"Host: " + ID + b".example\r\n"), EITHER, [(b"next", b"")])
