"""Answers that no sound upstream gives: the client gets a whole and well-formed one, a 502, or a cut connection; and never another call's."""

import concurrent.futures
import socket

import h11

OK = b"HTTP/1.1 200 OK\r\n"
CL, TE = b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
# `whole`: with that body. `refuse`: 502. `cut`: 502 or an end that the client notices. `either`: any of these.
WHOLE, REFUSE, CUT, EITHER = "whole", "refuse", "cut", "either"
SIDE_BY_SIDE = 24


class Answer:
    family = "answer"

    def __init__(self, name, data, may, body=b"hello", close=False, method="GET", status=200):
        self.name, self.data, self.may, self.body, self.close, self.method, self.status = name, data, may, body, close, method, status


def cases():
    return [*framings(), *chunks(), *heads(), *ends()]


def framings():
    yield Answer("a length", OK + CL % 5 + b"\r\nhello", WHOLE)
    yield Answer("a coding", OK + TE + b"\r\n" + HELLO, WHOLE)
    yield Answer("neither, to the end", OK + b"\r\nhello", WHOLE, close=True)
    yield Answer("CL, TE", OK + CL % 3 + TE + b"\r\n" + HELLO, EITHER)
    yield Answer("TE, CL", OK + TE + CL % 3 + b"\r\n" + HELLO, EITHER)
    yield Answer("CL, TE, a longer CL", OK + CL % 100 + TE + b"\r\n" + HELLO, EITHER)
    yield Answer("two CLs that differ", OK + CL % 5 + CL % 3 + b"\r\nhello", CUT)
    yield Answer("the same CL twice", OK + CL % 5 + CL % 5 + b"\r\nhello", EITHER)
    for value in (b"+5", b"-5", b"0x5", b"5, 6", b"", b"5 5", b"18446744073709551621", b"5\x0b", b"\xef\xbc\x95"):
        yield Answer(f"CL: {value!r}", OK + b"Content-Length: " + value + b"\r\n\r\nhello", CUT, close=True)
    yield Answer("CL: 5, 5", OK + b"Content-Length: 5, 5\r\n\r\nhello", EITHER)
    for value in (b"chunked, identity", b"identity", b"xchunked", b"chunked\0", b"\x0bchunked", b"", b"chunked;"):
        yield Answer(f"TE: {value!r}", OK + b"Transfer-Encoding: " + value + b"\r\n\r\n" + HELLO, EITHER, HELLO, close=True)
    for value in (b"gzip, chunked", b"identity, chunked", b"chunked, chunked"):
        yield Answer(f"TE: {value!r}", OK + b"Transfer-Encoding: " + value + b"\r\n\r\n" + HELLO, EITHER, close=True)
    yield Answer("TE in HTTP/1.0", b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n" + HELLO, EITHER, close=True)
    yield Answer("a space before TE's colon", OK + b"Transfer-Encoding : chunked\r\n" + CL % 3 + b"\r\n" + HELLO, EITHER, b"5\r\n", close=True)
    for status in (204, 304):
        yield Answer(f"{status} with a length", b"HTTP/1.1 %d X\r\n" % status + CL % 5 + b"\r\n", EITHER, b"", status=status)
        yield Answer(f"{status} with a body", b"HTTP/1.1 %d X\r\n" % status + CL % len(POISON) + b"\r\n" + POISON, EITHER, b"", status=status)
        yield Answer(f"{status} with a coded body", b"HTTP/1.1 %d X\r\n" % status + TE + b"\r\n" + HELLO, EITHER, b"", status=status)
    yield Answer("HEAD with a body", OK + CL % len(POISON) + b"\r\n" + POISON, EITHER, b"", method="HEAD")
    yield Answer("HEAD with a coded body", OK + TE + b"\r\n" + HELLO, EITHER, b"", method="HEAD")
    yield Answer("205 with a body", b"HTTP/1.1 205 X\r\n" + CL % 5 + b"\r\nhello", EITHER, status=205)


def chunks():
    for size in (b"+5", b"0x5", b"-5", b"", b"5 5", b"10000000000000005", b"5\0", b"x"):
        yield Answer(f"chunk size {size!r}", OK + TE + b"\r\n" + size + b"\r\nhello\r\n0\r\n\r\n", CUT, close=True)
    for name, body in {"LF behind the size": b"5\nhello\r\n0\r\n\r\n", "LF behind the chunk": b"5\r\nhello\n0\r\n\r\n", "too long": b"3\r\nhello\r\n0\r\n\r\n", "too short": b"8\r\nhello\r\n0\r\n\r\n"}.items():
        yield Answer(f"chunk, {name}", OK + TE + b"\r\n" + body, CUT, close=True)
    for name, lines in {"ordinary": b"X-Sum: 1\r\n", "Content-Length": b"Content-Length: 3\r\n", "Set-Cookie": b"Set-Cookie: a=b\r\n", "Transfer-Encoding": b"Transfer-Encoding: chunked\r\n", "Connection": b"Connection: close\r\n"}.items():
        yield Answer(f"trailer {name}", OK + TE + b"\r\n5\r\nhello\r\n0\r\n" + lines + b"\r\n", EITHER)
    yield Answer("a trailer without a colon", OK + TE + b"\r\n5\r\nhello\r\n0\r\nnonsense\r\n\r\n", CUT, close=True)
    yield Answer("an extension", OK + TE + b"\r\n5;a=b\r\nhello\r\n0\r\n\r\n", EITHER)


def heads():
    rest = CL % 5 + b"\r\nhello"
    for line in (b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 X", b"HTTP/1.1 OK", b"HTTP/1.1 -20 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"XTTP/1.1 200 OK", b"garbage", b"HTTP/1.1200 OK"):
        yield Answer(f"status line {line!r}", line + b"\r\n" + rest, CUT, close=True)
    for line in (b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1  200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1 200 a\xe9\xff", b"HTTP/1.1 200 \t", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\x1bK", b"HTTP/1.1 200 O\rK"):
        yield Answer(f"status line {line!r}", line + b"\r\n" + rest, EITHER)
    yield Answer("LF alone", (OK + rest).replace(b"\r\n", b"\n"), EITHER)
    yield Answer("CRLF before it", b"\r\n" + OK + rest, EITHER)
    for line in (b" X-A: 1", b"X-A : 1", b"X-A", b": 1", b"X A: 1", b"X-A: a\0b", b"X-A: a\rb", b"X-A: a\x1bb", b"X-A: 1\r\n folded", b"X\0A: 1", b"X-A: a\nX-B: 2", b"X-\xe9: 1", b"X-A: \xe9\xff", b"X-A: a\x7fb", b"X(A: 1"):
        yield Answer(f"header {line!r}", OK + line + b"\r\n" + rest, EITHER)
    yield Answer("a header of 1 MiB", OK + b"X-A: " + b"a" * 1024 * 1024 + b"\r\n" + rest, EITHER)
    yield Answer("10,000 headers", OK + b"X-A: 1\r\n" * 10_000 + rest, EITHER)
    yield Answer("100, then 200", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + rest, WHOLE)
    yield Answer("103, then 200", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + rest, WHOLE)
    yield Answer("1,000 times 100, then 200", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + OK + rest, EITHER)
    yield Answer("101 that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + POISON, CUT)
    yield Answer("100 with a length", b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + OK + rest, EITHER)


def ends():
    yield Answer("shorter than its length", OK + CL % 10 + b"\r\nhello", CUT, close=True)
    yield Answer("no last chunk", OK + TE + b"\r\n5\r\nhello\r\n", CUT, close=True)
    yield Answer("half a chunk", OK + TE + b"\r\n5\r\nhe", CUT, close=True)
    yield Answer("no CRLF at the end", OK + TE + b"\r\n5\r\nhello\r\n0\r\n", CUT, close=True)
    yield Answer("half a head", OK + b"X-A", REFUSE, close=True)
    yield Answer("nothing", b"", REFUSE, close=True)
    yield Answer("100 alone", b"HTTP/1.1 100 Continue\r\n\r\n", REFUSE, close=True)
    yield Answer("a second answer behind it", OK + CL % 5 + b"\r\nhello" + POISON, WHOLE)
    yield Answer("garbage behind it", OK + CL % 5 + b"\r\nhellogarbage\r\n\r\n", WHOLE)
    yield Answer("a second answer behind its chunks", OK + TE + b"\r\n" + HELLO + POISON, WHOLE)
    yield Answer("CRLF behind it", OK + CL % 5 + b"\r\nhello\r\n", WHOLE)


def ask(port, method, target):
    """How the client sees it: (`whole`, status, body), (`cut`, …) or (`malformed`, the fault)."""
    peer, status, body = h11.Connection(h11.CLIENT), None, b""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as stream:
        stream.sendall(peer.send(h11.Request(method=method, target=target, headers=[("Host", "localhost"), ("Connection", "close")])))
        peer.send(h11.EndOfMessage())
        data = b""
        try:
            while part := stream.recv(65_536):
                data += part
        except OSError:
            pass
    if not data:
        return "cut", status, body
    try:
        peer.receive_data(data)
        peer.receive_data(b"")
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return "whole", status, body
            elif isinstance(event, h11.ConnectionClosed) or event in (h11.NEED_DATA, h11.PAUSED):
                return "cut", status, body
    except h11.RemoteProtocolError as fault:
        return ("cut" if "without sending" in str(fault) or "incomplete" in str(fault) else "malformed"), status, str(fault).encode()


def judged(case, kind, status, body):
    refused = kind == "whole" and status >= 500
    right = kind == "whole" and status == case.status and body == case.body
    if kind == "malformed":
        return f"what the client gets is not well-formed: {body.decode()}"
    fine = {WHOLE: right, REFUSE: refused, CUT: refused or kind == "cut", EITHER: right or refused or kind == "cut"}[case.may]
    return None if fine else f"the client gets {kind} {status} {body[:60]!r}"


def run(proxy, letter="r"):
    """What each case looks like to the client, and whether the next calls get their own answers."""
    made = cases()
    proxy.recorder.script = [(case.data, case.close) for case in made]

    def one(number, case):
        first = ask(proxy.port, case.method, f"/any/c{number:04}{letter}/ans/{number}")
        after = [ask(proxy.port, "GET", f"/any/c{number:04}{letter}/next") for _ in range(3)]
        return first, after

    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(zip(made, pool.map(one, range(len(made)), made)))


def suite(ours, others):
    """Rows of the table, and the faults as (case, text)."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = list(pool.map(run, [ours, *others]))
    rows, found = [], []
    for results in zip(*done):
        case, (first, after) = results[0]
        said = [fault for fault in [judged(case, *first)] if fault]
        said += [f"the next call gets {kind} {status} {body[:60]!r}" for kind, status, body in after if (kind, status, body) != ("whole", 200, b"ok")]
        others_refuse = others and not any(passed(*result[1][0]) for result in results[1:])
        if case.may == EITHER and others_refuse and passed(*first):
            said.append("let through where the others refuse")
        found += [(case, fault) for fault in said]
        rows.append([case.name, case.may, *(shown(*result[1][0]) for result in results), "FAULT" if said else ""])
    return rows, found


def passed(kind, status, _):
    return kind == "whole" and status < 500


def shown(kind, status, body):
    return f"{kind} {status} +{len(body)}" if kind == "whole" else f"{kind} {status or ''}"
