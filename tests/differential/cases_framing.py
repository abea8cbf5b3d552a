"""How long is the body? Content-Length and Transfer-Encoding, together, twice and misspelt (RFC 9112 §6)."""

from case import ALL, EITHER, NEXT, REFUSE, SMUGGLED, Case, post

LENGTH = str(len(SMUGGLED)).encode()
WRAPPED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
EMPTY = b"0\r\n\r\n"
BOTH = "cl+te"


def cases():
    return [*both(), *lengths(), *codings(), *sound()]


def both():
    """Both framings: the coding wins, or all is refused; what only the length's reading shows is never a request (§6.1)."""
    cl = b"Content-Length: %s\r\n"
    te = b"Transfer-Encoding: chunked\r\n"
    short, long = cl % b"4", cl % LENGTH
    orders = {
        "CL, TE": lambda length: length + te,
        "TE, CL": lambda length: te + length,
        "CL, TE, CL": lambda length: length + te + length,
        "TE, CL, TE": lambda length: te + length + te,
        "CL, X, TE": lambda length: length + b"X-A: 1\r\n" + te,
        "TE in capitals, CL": lambda length: te.upper() + length,
        "CL in capitals, TE": lambda length: length.upper() + te,
    }
    for name, order in orders.items():
        # By the length, the request behind the last chunk is one; by the coding too, but a server has to close before it (§6.1).
        yield Case(BOTH, f"{name}: a request behind the last chunk", post(order(short), EMPTY + SMUGGLED), EITHER, [(b"a", b"")])
        yield Case(BOTH, f"{name}: a request in a chunk", post(order(short), WRAPPED), EITHER, [(b"a", SMUGGLED)])
        yield Case(BOTH, f"{name}: the length covers the chunks", post(order(long), EMPTY + SMUGGLED), EITHER, [(b"a", b"")])
    yield Case(BOTH, "CL: 0, TE", post(cl % b"0" + te, WRAPPED), EITHER, [(b"a", SMUGGLED)])
    yield Case(BOTH, "two CLs that differ, TE", post(cl % b"4" + cl % b"9" + te, WRAPPED), EITHER, [(b"a", SMUGGLED)])
    for name, bad in (("CL: +4, TE", b"+4"), ("CL: x, TE", b"x"), ("CL: empty, TE", b"")):
        yield Case(BOTH, name, post(cl % bad + te, WRAPPED), EITHER, [(b"a", SMUGGLED)])
    yield Case(BOTH, "Connection names the length, TE", post(b"Connection: content-length\r\n" + short + te, WRAPPED), EITHER, [(b"a", SMUGGLED)])
    named = b"Connection: transfer-encoding\r\n"
    yield Case(BOTH, "Connection names the coding, CL", post(named + short + te, WRAPPED), EITHER, [(b"a", SMUGGLED)])


def lengths():
    family = "content-length"
    refused = {
        "+5": b"+5", "-1": b"-1", "-5": b"-5", "0x5": b"0x5", "5.0": b"5.0", "5e0": b"5e0", "empty": b"", "5 5": b"5 5", "5_0": b"5_0", "5;": b"5;", "'5'": b"'5'",
        '"5"': b'"5"', "5h": b"5h", "2^64": b"18446744073709551616", "2^64 + 5": b"18446744073709551621", "2^128": b"340282366920938463463374607431768211456",
        "a full-width 5": "５".encode(), "a superscript 5": "⁵".encode("utf-8"), "5, 6": b"5, 6", "6, 5": b"6, 5", "5,": b"5,", ", 5": b", 5",
        "5 behind a vertical tab": b"\x0b5", "5 before a form feed": b"5\x0c", "5 before a NUL": b"5\0",
    }
    for name, value in refused.items():
        may = EITHER if name in ("5,", ", 5") else REFUSE  # empty list members may be skipped (RFC 9110 §5.6.1.2)
        yield Case(family, name, post(b"Content-Length: " + value + b"\r\n", b"hello" + SMUGGLED), may, [(b"a", b"hello")] if may is EITHER else [])
    twice = b"Content-Length: 5\r\nContent-Length: %s\r\n"
    for name, second in (("5 and 6", b"6"), ("5 and 0", b"0"), ("5 and empty", b""), ("5 and +5", b"+5")):
        yield Case(family, f"two lines, {name}", post(twice % second, b"hello" + SMUGGLED), REFUSE)
    yield Case(family, "two lines, 6 and 5", post(b"Content-Length: 6\r\nContent-Length: 5\r\n", b"hello" + SMUGGLED), REFUSE)
    spaced = {" 5 with more spaces": b"   5", "5 with trailing spaces": b"5  ", "5 behind a tab": b"\t5", "5 before a tab": b"5\t"}
    for name, value in spaced.items():
        yield Case(family, name, post(b"Content-Length: " + value + b"\r\n", b"hello" + NEXT), EITHER, [(b"a", b"hello"), (b"next", b"")])
    # One meaning, so it may pass (§6.3), once normalised.
    same = {"5 twice": twice % b"5", "a list 5, 5": b"Content-Length: 5, 5\r\n", "a list 5,5": b"Content-Length: 5,5\r\n", "005": b"Content-Length: 005\r\n", "5 and 05": twice % b"05"}
    for name, lines in same.items():
        yield Case(family, name, post(lines, b"hello" + NEXT), EITHER, [(b"a", b"hello"), (b"next", b"")])
    misspelt = {
        "a space before the colon": b"Content-Length : 5\r\n", "a tab before the colon": b"Content-Length\t: 5\r\n", "a leading space": b" Content-Length: 5\r\n",
        "a NUL in the name": b"Content\0-Length: 5\r\n", "a vertical tab before the colon": b"Content-Length\x0b: 5\r\n", "no colon": b"Content-Length 5\r\n",
    }
    for name, line in misspelt.items():
        yield Case(family, name, post(line, b"hello" + SMUGGLED), REFUSE)
    # An underscore is another name: the request has no body, and what follows is not a request line.
    yield Case(family, "an underscore in the name", post(b"Content_Length: 7\r\n", b"hello\r\n" + SMUGGLED), EITHER, [(b"a", b"")])


def codings():
    family = "transfer-encoding"
    refused = {
        "chunked, identity": b" chunked, identity", "identity": b" identity", "xchunked": b" xchunked", "chunkedx": b" chunkedx", "gzip": b" gzip", "chunked, gzip": b" chunked, gzip",
        "empty": b"", "a comma": b" ,", "chunk": b" chunk", "'chunked'": b" 'chunked'", '"chunked"': b' "chunked"', "chunked behind a vertical tab": b" \x0bchunked",
        "chunked before a vertical tab": b" chunked\x0b", "chunked behind a NUL": b" \0chunked", "chunked before a NUL": b" chunked\0", "chunked before a form feed": b" chunked\x0c",
        "chunked;": b" chunked;", "chunked behind a BOM": b" \xef\xbb\xbfchunked", "chunked behind a no-break space": b" \xa0chunked", "chunKed with a Kelvin sign": " chun\u212aed".encode(),
        "chunked identity": b" chunked identity", "chunked behind a bare CR": b" \rchunked", "chunked before a bare CR": b" chunked\r",
    }
    for name, value in refused.items():
        yield Case(family, name, post(b"Transfer-Encoding:" + value + b"\r\n", EMPTY + SMUGGLED), REFUSE)
        both = b"Transfer-Encoding:" + value + b"\r\nContent-Length: %d\r\n" % len(EMPTY)
        yield Case(family, f"{name}, with a length", post(both, EMPTY + SMUGGLED), REFUSE)
    # The coding is chunked at the end: some servers take these, some do not. If at all, as one body.
    possible = {
        "identity, chunked": b" identity, chunked", "gzip, chunked": b" gzip, chunked", "chunked, chunked": b" chunked, chunked", ", chunked": b" , chunked", "chunked,": b" chunked,",
        "chunked;q=1": b" chunked;q=1", "chunked behind a tab": b"\tchunked", "chunked before spaces": b" chunked  ", "chunked before a tab": b" chunked\t", "Chunked": b" Chunked",
        "chunked without a space": b"chunked",
    }
    for name, value in possible.items():
        lines = b"Transfer-Encoding:" + value + b"\r\n"
        yield Case(family, name, post(lines, WRAPPED + NEXT), EITHER, [(b"a", SMUGGLED), (b"next", b"")])
        yield Case(family, f"{name}, with a length", post(lines + b"Content-Length: 5\r\n", WRAPPED + NEXT), EITHER, [(b"a", SMUGGLED)])
    te = b"Transfer-Encoding: %s\r\n"
    lines_of_two = {"chunked, then identity": (b"chunked", b"identity"), "chunked, then gzip": (b"chunked", b"gzip"), "chunked, then x": (b"chunked", b"x"), "identity twice": (b"identity", b"identity")}
    for name, (first, second) in lines_of_two.items():
        yield Case(family, f"two lines, {name}", post(te % first + te % second, EMPTY + SMUGGLED), REFUSE)
    for first in (b"chunked", b"identity", b"x", b""):
        name = f"two lines, {first.decode() or 'empty'}, then chunked"
        yield Case(family, name, post(te % first + te % b"chunked", WRAPPED), EITHER, [(b"a", SMUGGLED)])
    misspelt = {
        "a space before the colon": b"Transfer-Encoding : chunked\r\n", "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n", "a leading space": b" Transfer-Encoding: chunked\r\n",
        "a leading tab": b"\tTransfer-Encoding: chunked\r\n", "a NUL in the name": b"Transfer\0-Encoding: chunked\r\n", "folded": b"Transfer-Encoding:\r\n chunked\r\n",
        "folded by a tab": b"Transfer-Encoding:\r\n\tchunked\r\n", "behind a bare CR": b"X-A: 1\rTransfer-Encoding: chunked\r\n", "no colon": b"Transfer-Encoding chunked\r\n",
    }
    for name, line in misspelt.items():
        yield Case(family, name, post(line, EMPTY + SMUGGLED), REFUSE)
        yield Case(family, f"{name}, with a length", post(line + b"Content-Length: 5\r\n", EMPTY + SMUGGLED), REFUSE)
    for name in (b"Transfer_Encoding", b"Transfer-Encodings", b"X-Transfer-Encoding"):
        yield Case(family, f"{name.decode()} is no framing", post(name + b": chunked\r\nContent-Length: 5\r\n", EMPTY + NEXT), EITHER, [(b"a", EMPTY), (b"next", b"")])
    yield Case(family, "behind a bare LF", post(b"X-A: 1\nTransfer-Encoding: chunked\r\n", WRAPPED + NEXT), EITHER, [(b"a", SMUGGLED), (b"next", b"")])
    old = post(b"Transfer-Encoding: chunked\r\n", EMPTY + SMUGGLED, version=b"HTTP/1.0")
    yield Case(family, "in HTTP/1.0", old, REFUSE)
    keep = b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"
    yield Case(family, "in HTTP/1.0, with a length and keep-alive", post(keep, EMPTY + SMUGGLED, version=b"HTTP/1.0"), REFUSE)


def sound():
    """What is well-formed passes, and what looks like a request in a body stays a body."""
    through = [(b"a", SMUGGLED), (b"next", b"")]
    for method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"GET", b"OPTIONS", b"HEAD"):
        name = method.decode()
        may = ALL if method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"GET", b"OPTIONS") else EITHER
        yield Case("sound", f"{name} with a length", post(b"Content-Length: " + LENGTH + b"\r\n", SMUGGLED + NEXT, method=method), may, through)
        yield Case("sound", f"{name} with a coding", post(b"Transfer-Encoding: chunked\r\n", WRAPPED + NEXT, method=method), may, through)
    for method in (b"GET", b"HEAD", b"DELETE", b"POST"):
        yield Case("sound", f"{method.decode()} without a body", post(b"", NEXT, method=method), ALL, [(b"a", b""), (b"next", b"")])
    yield Case("sound", "CL: 0", post(b"Content-Length: 0\r\n", NEXT), ALL, [(b"a", b""), (b"next", b"")])
    yield Case("sound", "HTTP/1.0 with a length", post(b"Content-Length: 5\r\n", b"hello", version=b"HTTP/1.0"), ALL, [(b"a", b"hello")])
    # An answer to HTTP/1.0 without keep-alive ends the connection.
    yield Case("sound", "HTTP/1.0, then a request", post(b"", NEXT, version=b"HTTP/1.0", method=b"GET"), EITHER, [(b"a", b"")])
    yield Case("sound", "close, then a request", post(b"Connection: close\r\n", SMUGGLED, method=b"GET"), ALL, [(b"a", b"")])
    keep = post(b"Connection: keep-alive\r\n", NEXT, version=b"HTTP/1.0", method=b"GET")
    yield Case("sound", "HTTP/1.0 with keep-alive, then a request", keep, EITHER, [(b"a", b""), (b"next", b"")])
