"""Chunks: sizes, extensions, their line ends, and trailers (RFC 9112 §7.1)."""

from case import ALL, EITHER, NEXT, REFUSE, SMUGGLED, Case, chunked

END = b"\r\n0\r\n\r\n"
BOTH = [(b"a", b"hello"), (b"next", b"")]


def cases():
    return [*sizes(), *extensions(), *line_ends(), *trailers()]


def sizes():
    refused = {
        "empty": b"", "+5": b"+5", "-5": b"-5", "0x5": b"0x5", "5h": b"5h", "5_": b"5_", "5.0": b"5.0", "x": b"x", "5 5": b"5 5", "2^64": b"10000000000000000", "2^64 + 5": b"10000000000000005",
        "2^128 + 5": b"100000000000000000000000000000005", "a vertical tab before it": b"\x0b5",
        "a NUL behind it": b"5\0", "a NUL before it": b"\x005", "a full-width 5": "５".encode(), "a bare CR behind it": b"5\r", "a quoted 5": b'"5"', "5,": b"5,",
    }
    for name, size in refused.items():
        yield Case("chunk size", name, chunked(size + b"\r\nhello" + END + SMUGGLED), REFUSE)
    # Fits 64 bits, and is never whole.
    for name, size in {"2^64 - 1": b"ffffffffffffffff", "2^63": b"8000000000000000"}.items():
        yield Case("chunk size", name, chunked(size + b"\r\nhello" + END + SMUGGLED), EITHER, [(b"a", b"")])
    for name, size in {"a space before it": b" 5", "a tab before it": b"\t5", "a space behind it": b"5 ", "a tab behind it": b"5\t", "many spaces behind it": b"5" + b" " * 40}.items():
        yield Case("chunk size", name, chunked(size + b"\r\nhello" + END + NEXT), EITHER, BOTH)
    for name, size in {"5": b"5", "005": b"005", "sixteen digits": b"0000000000000005"}.items():
        yield Case("chunk size", name, chunked(size + b"\r\nhello" + END + NEXT), ALL, BOTH)
    yield Case("chunk size", "seventeen digits", chunked(b"00000000000000005\r\nhello" + END + NEXT), EITHER, BOTH)
    yield Case("chunk size", "a thousand zeros before it", chunked(b"0" * 1000 + b"5\r\nhello" + END + NEXT), EITHER, BOTH)
    for digits in (b"a", b"A"):
        yield Case("chunk size", f"hexadecimal {digits.decode()}", chunked(digits + b"\r\nhellohello" + END + NEXT), ALL, [(b"a", b"hellohello"), (b"next", b"")])
    yield Case("chunk size", "many chunks", chunked(b"1\r\nh\r\n" * 200 + b"0\r\n\r\n" + NEXT), ALL, [(b"a", b"h" * 200), (b"next", b"")])
    for name, last in {"000": b"000", "sixteen zeros": b"0" * 16}.items():
        yield Case("chunk size", f"the last one as {name}", chunked(b"5\r\nhello\r\n" + last + b"\r\n\r\n" + NEXT), EITHER, BOTH)
    for name, last in {"-0": b"-0", "+0": b"+0", "0x0": b"0x0", "empty": b"", "0.": b"0."}.items():
        yield Case("chunk size", f"the last one as {name}", chunked(b"5\r\nhello\r\n" + last + b"\r\n\r\n" + SMUGGLED), REFUSE)
    yield Case("chunk size", "longer than the chunk", chunked(b"8\r\nhello" + END + SMUGGLED), REFUSE)
    yield Case("chunk size", "shorter than the chunk", chunked(b"3\r\nhello" + END + SMUGGLED), REFUSE)
    yield Case("chunk size", "a request in a chunk", chunked(b"%x\r\n%s" % (len(SMUGGLED), SMUGGLED) + END + NEXT), ALL, [(b"a", SMUGGLED), (b"next", b"")])


def extensions():
    fine = {"name": b";a", "name=value": b";a=b", "quoted": b';a="b c"', "two": b";a=b;c=d", "a quoted semicolon": b';a=";"', "an escaped quote": b';a="\\""'}
    for name, extension in fine.items():
        yield Case("chunk extension", name, chunked(b"5" + extension + b"\r\nhello" + END + NEXT), EITHER, BOTH)
    odd = {"a space before the semicolon": b" ;a=b", "a tab before it": b"\t;a=b", "a space behind it": b"; a=b", "spaces about =": b";a = b", "nothing behind it": b";", "many semicolons": b";;;;",
           "1 KiB": b";a=" + b"b" * 1024, "non-ASCII": b";a=\xe9", "a quote that does not end": b';a="b', "an escape at the end": b';a="b\\'}
    for name, extension in odd.items():
        yield Case("chunk extension", name, chunked(b"5" + extension + b"\r\nhello" + END + NEXT), EITHER, BOTH)
    # RFC 9112 has no line ends in quotes; a reader that thinks so frames otherwise than one that does not.
    inside = b'5;a="\r\nhello\r\n0\r\n\r\n' + SMUGGLED
    yield Case("chunk extension", "CRLF in quotes", chunked(inside), EITHER, [(b"a", b"hello"), (b"smuggled", b"")])
    for name, byte in {"LF": b"\n", "CR": b"\r", "NUL": b"\0"}.items():
        may, through = (EITHER, [(b"a", b"hello"), (b"smuggled", b"")]) if name == "NUL" else (REFUSE, [])
        yield Case("chunk extension", f"a bare {name}", chunked(b"5;a" + byte + b"b\r\nhello" + END + SMUGGLED), may, through)
        yield Case("chunk extension", f"a bare {name} in quotes", chunked(b'5;a="' + byte + b'"\r\nhello' + END + SMUGGLED), may, through)
        yield Case("chunk extension", f"a bare {name} in the last chunk's", chunked(b"5\r\nhello\r\n0;a" + byte + b"b\r\n\r\n" + SMUGGLED), may, through)
    # TERM.EXT and EXT.TERM: a bare LF that hides a chunk from one reader.
    hidden = b"2;\nxx\r\n%x\r\n0\r\n\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED) + 5, SMUGGLED)
    yield Case("chunk extension", "a bare LF that hides a chunk", chunked(hidden), REFUSE)
    yield Case("chunk extension", "64 KiB", chunked(b"5;a=" + b"b" * 65_536 + b"\r\nhello" + END + SMUGGLED), EITHER, [(b"a", b"hello")])
    each = b"".join(b"1;a=%s\r\nh\r\n" % (b"b" * 200) for _ in range(400))
    yield Case("chunk extension", "80 KiB on 400 bytes", chunked(each + b"0\r\n\r\n"), EITHER, [(b"a", b"h" * 400)])


def line_ends():
    family = "chunk line end"
    refused = {
        "LF behind the size": b"5\nhello\r\n0\r\n\r\n", "LF behind the chunk": b"5\r\nhello\n0\r\n\r\n", "CR behind the size": b"5\rhello\r\n0\r\n\r\n", "CR behind the chunk": b"5\r\nhello\r0\r\n\r\n",
        "LF alone everywhere": b"5\nhello\n0\n\n", "nothing behind the chunk": b"5\r\nhello0\r\n\r\n", "two bytes that are no CRLF": b"5\r\nhelloXX0\r\n\r\n", "LF CR behind the chunk": b"5\r\nhello\n\r0\r\n\r\n",
        "CR CR LF behind the size": b"5\r\r\nhello\r\n0\r\n\r\n", "CRLF twice behind the size": b"5\r\n\r\nhello\r\n0\r\n\r\n", "CRLF twice behind the chunk": b"5\r\nhello\r\n\r\n0\r\n\r\n",
        "a line before the size": b"\r\n5\r\nhello\r\n0\r\n\r\n",
    }
    for name, body in refused.items():
        yield Case(family, name, chunked(body + SMUGGLED), REFUSE)
    for name, body in {"LF behind the last size": b"5\r\nhello\r\n0\n\r\n", "LF at the end": b"5\r\nhello\r\n0\r\n\n", "CR at the end": b"5\r\nhello\r\n0\r\n\r"}.items():
        yield Case(family, name, chunked(body + SMUGGLED), REFUSE)


def trailers():
    """Trailers that frame, route or name someone must not go on as such; the strict reader refuses those it sees."""
    def trailed(lines, behind=NEXT):
        return chunked(b"5\r\nhello\r\n0\r\n" + lines + b"\r\n" + behind, b"TE: trailers\r\n")

    fine = {
        "ordinary": b"X-Sum: 1\r\n", "two": b"X-Sum: 1\r\nX-Other: 2\r\n", "Content-Length": b"Content-Length: 100\r\n", "Transfer-Encoding": b"Transfer-Encoding: chunked\r\n", "Host": b"Host: evil\r\n",
        "Authorization": b"Authorization: Bearer forged\r\n", "X-End-User": b"X-End-User: bob\r\n", "Connection": b"Connection: close\r\n", "Trailer": b"Trailer: x\r\n", "Expect": b"Expect: 100-continue\r\n",
        "Content-Length and its body": b"Content-Length: %d\r\n" % len(NEXT), "X-Attache-Key": b"X-Attache-Key: forged\r\n", "Cookie": b"Cookie: a=b\r\n",
    }
    for name, lines in fine.items():
        yield Case("trailer", name, trailed(lines), EITHER, BOTH)
    announced = chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n" + NEXT, b"Trailer: X-Sum\r\nTE: trailers\r\n")
    yield Case("trailer", "announced", announced, ALL, BOTH)
    # Named by Trailer, a proxy may send them on: but not these.
    for name in (b"Content-Length", b"Transfer-Encoding", b"Host", b"Authorization", b"X-End-User", b"X-Attache-Key", b"Cookie", b"Proxy-Authorization", b"Connection"):
        value = b"5" if name == b"Content-Length" else b"bob"
        body = b"5\r\nhello\r\n0\r\n" + name + b": " + value + b"\r\n\r\n" + NEXT
        yield Case("trailer", f"{name.decode()}, announced", chunked(body, b"Trailer: " + name + b"\r\nTE: trailers\r\n"), EITHER, BOTH)
    refused = {"no colon": b"nonsense\r\n", "a space before the colon": b"X-Sum : 1\r\n", "folded": b"X-Sum: 1\r\n 2\r\n", "a leading space": b" X-Sum: 1\r\n", "a NUL": b"X-Sum: a\0b\r\n",
               "a bare CR": b"X-Sum: a\rb\r\n", "an empty name": b": 1\r\n"}
    for name, lines in refused.items():
        yield Case("trailer", name, trailed(lines, SMUGGLED), REFUSE)
    yield Case("trailer", "LF alone", trailed(b"X-Sum: 1\n"), EITHER, BOTH)
    yield Case("trailer", "a request in place of one", trailed(SMUGGLED[:-2], b""), REFUSE)
    yield Case("trailer", "10,000", trailed(b"X-Sum: 1\r\n" * 10_000), EITHER, BOTH)
    yield Case("trailer", "1 MiB", trailed(b"X-Sum: " + b"1" * 1024 * 1024 + b"\r\n"), EITHER, BOTH)
