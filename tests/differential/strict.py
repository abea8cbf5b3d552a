"""A strict reader of HTTP/1.1 requests (RFC 9112): what an upstream that forgives nothing makes of the bytes of one connection.

It shares no code with any proxy under test. Anything that two servers could read differently is a `Violation`, not a guess.
"""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
LENGTH = re.compile(rb"[0-9]{1,18}")
# RFC 9110 §6.5.1: a trailer must not frame, route or authenticate.
NOT_IN_TRAILERS = {b"content-length", b"transfer-encoding", b"host", b"authorization", b"trailer", b"connection", b"te", b"expect"}
HEAD_MAX = 1024 * 1024


class Violation(Exception):
    """The bytes are not strictly well-formed; the text says where."""


class Request:
    def __init__(self, method, target, version, fields):
        self.method, self.target, self.version, self.fields = method, target, version, fields
        self.body, self.trailers = b"", []

    def all(self, name):
        return [value for found, value in self.fields if found.lower() == name]

    def __repr__(self):
        return f"{self.method.decode()} {self.target.decode()} +{len(self.body)}"


class Reader:
    """Feed it bytes; whole requests gather in `requests`. After a violation it reads no further."""

    def __init__(self, on_head=None):
        self.buffer, self.requests, self.violation, self.current = b"", [], None, None
        self.on_head = on_head or (lambda request: None)
        self.steps = self.read()
        next(self.steps)

    def feed(self, more):
        """The requests that these bytes made whole."""
        before = len(self.requests)
        self.buffer += more
        if self.violation is None:
            try:
                self.steps.send(None)
            except Violation as fault:
                self.violation = str(fault)
        return self.requests[before:]

    @property
    def is_between(self):
        """True where no request is begun and not ended."""
        return self.violation is None and self.current is None and not self.buffer

    def read(self):
        yield
        while True:
            head = yield from self.head()
            self.current = head
            self.on_head(head)
            coded, lengths = head.all(b"transfer-encoding"), head.all(b"content-length")
            if coded:
                yield from self.chunks(head)
            elif lengths:
                head.body = yield from self.exactly(int(lengths[0]))
            self.current = None
            self.requests.append(head)

    def line(self):
        """One line without its CRLF."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > HEAD_MAX:
                raise Violation("a line without end")
            yield
        line, self.buffer = self.buffer.split(b"\n", 1)
        if not line.endswith(b"\r"):
            raise Violation(f"a bare LF after {line[-60:]!r}")
        if b"\r" in line[:-1] or b"\0" in line:
            raise Violation(f"a bare CR or a NUL in {line[-60:]!r}")
        return line[:-1]

    def exactly(self, count):
        while len(self.buffer) < count:
            yield
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def fields(self):
        found = []
        while True:
            line = yield from self.line()
            if not line:
                return found
            field = FIELD.fullmatch(line)
            if field is None:
                raise Violation(f"no header field: {line[:60]!r}")
            found.append((field[1], field[2]))

    def head(self):
        line = yield from self.line()
        first = REQUEST_LINE.fullmatch(line)
        if first is None:
            raise Violation(f"no request line: {line[:80]!r}")
        request = Request(first[1], first[2], first[3], (yield from self.fields()))
        check_head(request)
        return request

    def chunks(self, request):
        while True:
            line = yield from self.line()
            if SIZE.fullmatch(line) is None:
                raise Violation(f"no chunk size, or one with an extension: {line[:60]!r}")
            size = int(line, 16)
            if size == 0:
                break
            request.body += yield from self.exactly(size)
            if (yield from self.exactly(2)) != b"\r\n":
                raise Violation("no CRLF after a chunk")
        request.trailers = yield from self.fields()
        forbidden = [name for name, _ in request.trailers if name.lower() in NOT_IN_TRAILERS]
        if forbidden:
            raise Violation(f"a trailer named {forbidden[0]!r}")


def check_head(request):
    """What RFC 9112 §3.2, §6.1 and §6.3 leave to no guess."""
    hosts, coded, lengths = request.all(b"host"), request.all(b"transfer-encoding"), request.all(b"content-length")
    if len(hosts) != 1 and (request.version == b"1" or hosts):
        raise Violation(f"{len(hosts)} Host lines")
    if coded and lengths:
        raise Violation("Transfer-Encoding and Content-Length")
    if coded and (len(coded) > 1 or coded[0].lower() != b"chunked"):
        raise Violation(f"Transfer-Encoding: {coded!r}")
    if coded and request.version != b"1":
        raise Violation("Transfer-Encoding in HTTP/1.0")
    if len(lengths) > 1 or (lengths and LENGTH.fullmatch(lengths[0]) is None):
        raise Violation(f"Content-Length: {lengths!r}")


def by_h11(data):
    """The same bytes as python h11 reads them as a server: the targets of whole requests, and its fault, if it has one.

    h11 is lenient where RFC 9112 lets a recipient be (bare LF), so it is a second opinion, not the only one.
    """
    import h11

    peer, targets, target = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX), [], None
    peer.receive_data(data)
    try:
        while True:
            event = peer.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED):
                if event is h11.PAUSED and peer.our_state is not h11.DONE:
                    return targets, None  # an upgrade was asked for: nothing after it is a request
                if event is h11.NEED_DATA:
                    return targets, None
                peer.start_next_cycle()
            elif isinstance(event, h11.Request):
                target = event.target
            elif isinstance(event, h11.EndOfMessage):
                targets.append(bytes(target))
                peer.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE:
                    return targets, None  # the request said that it is the last
            elif isinstance(event, h11.ConnectionClosed):
                return targets, None
    except h11.ProtocolError as fault:
        return targets, str(fault)
