"""The raw client: exact bytes in, in pieces where asked, and the answers that came back."""

import socket
import time

PATIENCE_S = 10
QUIET_S = 0.4
# How long to look for an answer too many once all that were due have come.
LINGER_S = 0.05


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    @property
    def saw(self):
        """What the recorder said it answers; empty where the proxy answered itself."""
        return self.fields.get("x-saw", "")


class Outcome:
    """What one connection gave: the answers, whether the proxy ended it, and the bytes as they came."""

    def __init__(self, answers, closed, raw):
        self.answers, self.closed, self.raw = answers, closed, raw

    @property
    def statuses(self):
        return [answer.status for answer in self.answers]

    def __str__(self):
        said = ",".join(str(status) for status in self.statuses) or "-"
        return said + (" closed" if self.closed else "")


def exchange(port, pieces, due=None, until_closed=False, pause_s=0.002, patience_s=None):
    """Sends the pieces one by one. Waits for `due` answers or for the end, as long as `patience_s`, and with neither until it is quiet."""
    patience_s = patience_s or PATIENCE_S
    raw, closed = bytearray(), False
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(pause_s)
                stream.sendall(piece)
        except OSError:
            pass  # refused already: what it said is read below
        give_up = time.monotonic() + patience_s
        while time.monotonic() < give_up:
            complete = due is not None and len(finals(raw)) >= due
            stream.settimeout(LINGER_S if complete and not until_closed else patience_s if due or until_closed else QUIET_S)
            try:
                data = stream.recv(65_536)
            except TimeoutError:
                break
            except OSError:
                closed = True
                break
            if not data:
                closed = True
                break
            raw += data
    return Outcome(finals(raw), closed, bytes(raw))


def finals(raw):
    return [answer for answer in answers(bytes(raw)) if answer.status >= 200]


def answers(raw):
    """The whole answers in the bytes. A body without a length is all that is left."""
    found = []
    while b"\r\n\r\n" in raw:
        head, rest = raw.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            found.append(Answer(999, {}, raw))  # no answer at all: the connection is out of step
            return found
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body, raw = take_body(int(words[1]), fields, rest)
        if body is None:
            return found
        found.append(Answer(int(words[1]), fields, body))
    return found


def take_body(status, fields, rest):
    """The body and what follows it; `None` where it is not whole."""
    if status < 200 or status in (204, 304) or fields.get("x-saw", "").startswith("HEAD "):
        return b"", rest
    if "chunked" in fields.get("transfer-encoding", ""):
        body = b""
        while b"\r\n" in rest:
            line, after = rest.split(b"\r\n", 1)
            size = int(line.split(b";")[0], 16)
            if len(after) < size + 2:
                return None, rest
            body, rest = body + after[:size], after[size + 2:]
            if size == 0:
                return body, rest
        return None, rest
    if "content-length" in fields:
        length = int(fields["content-length"])
        return (rest[:length], rest[length:]) if len(rest) >= length else (None, rest)
    return rest, b""
