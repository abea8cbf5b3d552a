"""Floods of HTTP/2 frames (THREATS 16): meanwhile others are served, memory stays bounded, and Attaché lives on."""

import threading
import time

from cases_h2 import usual
from client import exchange
from frames import Peer
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

SECONDS = 1.0
# However much a flood sends, resident memory may grow by this at most; the debug build, its allocator and the answers of others included.
GROWTH_KIB_MAX = 96 * 1024


class Flood:
    family = "h2 flood"

    def __init__(self, name, send, settings=None):
        self.name, self.send, self.settings = name, send, settings

    def run(self, port):
        """Floods until time is up, over a new connection when one is hung up; how many connections and rounds, and how the last one ended."""
        connections, rounds, until = 0, 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            connections += 1
            more, end = self.flood(Peer(port, settings=self.settings), until)
            rounds += more
        return connections, rounds, end

    def flood(self, peer, until):
        try:
            peer.take(10)
            peer.stream.settimeout(SECONDS)
            rounds = 0
            while time.monotonic() < until and not peer.closed and self.send(peer, rounds):
                rounds += 1
            while not peer.closed and peer.take(0.2):
                pass
            return rounds, f"goaway({peer.goaway})" if peer.goaway is not None else "closed" if peer.closed else "open"
        except OSError as error:
            return 0, f"{error}"
        finally:
            peer.close()


def stream(number):
    return 2 * number + 1


def floods():
    """Each `send` is one round of a batch, so that Python keeps up."""
    batch = 50

    def each(make):
        return lambda peer, number: peer.send(*(frame for step in range(batch) for frame in make(peer, number * batch + step)))

    def call(number):
        return usual(path=b"/any/c0000z/a")

    def begun(make):
        """Frames on one stream that stays open."""
        def send(peer, number):
            if number == 0:
                peer.send(peer.headers(1, [(name, b"POST" if name == b":method" else value) for name, value in call(0)]))
            return peer.send(*(frame for step in range(batch) for frame in make(peer, number * batch + step)))
        return send

    yield Flood("rapid reset", each(lambda peer, n: [peer.headers(stream(n), call(n), end=True), RstStreamFrame(stream(n), 8)]))
    yield Flood("rapid reset of uploads", each(lambda peer, n: [peer.headers(stream(n), call(n)), DataFrame(stream(n), b"x"), RstStreamFrame(stream(n), 8)]))
    yield Flood("made you reset: window of 0", each(lambda peer, n: [peer.headers(stream(n), call(n)), b"\0\0\4\x08\0" + stream(n).to_bytes(4, "big") + b"\0\0\0\0"]))
    yield Flood("made you reset: window overflow", each(lambda peer, n: [peer.headers(stream(n), call(n)), WindowUpdateFrame(stream(n), 0x7FFFFFFF)]))
    yield Flood("made you reset: priority on itself", each(lambda peer, n: [peer.headers(stream(n), call(n)), b"\0\0\5\x02\0" + stream(n).to_bytes(4, "big") * 2 + b"\0"]))
    yield Flood("made you reset: malformed heads", each(lambda peer, n: [peer.headers(stream(n), [*call(n), (b"connection", b"x")], end=True)]))
    yield Flood("streams over the limit", each(lambda peer, n: [peer.headers(stream(n), call(n))]))
    yield Flood("CONTINUATION without end", lambda peer, n: peer.send(*([HeadersFrame(1, peer.encoder.encode(call(0)))] if n == 0 else []), *[ContinuationFrame(1, b"\x00\x01a\x01b" * 100) for _ in range(20)]))
    yield Flood("empty CONTINUATION without end", lambda peer, n: peer.send(*([HeadersFrame(1, peer.encoder.encode(call(0)))] if n == 0 else []), *[ContinuationFrame(1, b"")] * batch))
    yield Flood("SETTINGS, answers unread", each(lambda peer, n: [SettingsFrame(0, settings={4: 65_535 + n % 2})]))
    yield Flood("empty SETTINGS", each(lambda peer, n: [SettingsFrame(0)]))
    yield Flood("PING, answers unread", each(lambda peer, n: [PingFrame(0, b"12345678")]))
    yield Flood("PRIORITY", each(lambda peer, n: [PriorityFrame(stream(n % 100_000), depends_on=0)]))
    yield Flood("unknown frames", each(lambda peer, n: [b"\0\0\x10\xbe\0\0\0\0\0" + b"x" * 16]))
    yield Flood("empty DATA", begun(lambda peer, n: [DataFrame(1, b"")]))
    yield Flood("padding alone", begun(lambda peer, n: [b"\0\1\0\0\x08\0\0\0\1\xff" + b"\0" * 255]))
    yield Flood("WINDOW_UPDATE of 1", begun(lambda peer, n: [WindowUpdateFrame(1, 1)]))
    yield Flood("answers with a window of 1", each(lambda peer, n: [peer.headers(stream(n), call(n), end=True)]), settings={4: 1})
    yield Flood("HPACK bomb", hpack_bomb)


def hpack_bomb(peer, number):
    """A large entry of the dynamic table, named by one byte thousands of times."""
    block = peer.encoder.encode(usual(path=b"/any/c0000z/a")) + b"\x40\x01a\x7f\xc1\x1e" + b"x" * 4000 + b"\xbe" * 12_000
    return peer.send(HeadersFrame(stream(number), block[:16_000], flags=["END_STREAM"]), ContinuationFrame(stream(number), block[16_000:], flags=["END_HEADERS"]))


class Others(threading.Thread):
    """Somebody else's calls, one after another, over connections of their own."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stopping, self.took_ms, self.failed = port, threading.Event(), [], []

    def run(self):
        while not self.took_ms or not self.stopping.wait(0.01):
            began = time.monotonic()
            try:
                outcome = exchange(self.port, [b"GET /any/c0000y/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"], until_closed=True)
                if outcome.statuses != [200]:
                    self.failed.append(str(outcome))
            except OSError as error:
                self.failed.append(str(error))
            self.took_ms.append((time.monotonic() - began) * 1000)


def suite(ours):
    """Rows of the table, and the faults as (case, text)."""
    rows, found = [], []
    for flood in floods():
        before, seen = ours.process.memory()[0], len(ours.recorder.seen("c0000z"))
        ours.process.reset_peak()
        others = Others(ours.port)
        others.start()
        try:
            connections, rounds, end = flood.run(ours.port)
        finally:
            others.stopping.set()
            others.join()
        if ours.process.child.poll() is not None:
            return rows, [*found, (flood, f"attache ended with {ours.process.child.returncode}")]
        grown = ours.process.memory()[1] - before
        found += [(flood, f"another client's call failed: {fault}") for fault in others.failed[:3]]
        if grown > GROWTH_KIB_MAX:
            found.append((flood, f"resident memory grew by {grown / 1024:.0f} MiB"))
        calls = len(ours.recorder.seen("c0000z")) - seen
        rows.append([flood.name, connections, rounds, end, f"{calls} calls upstream", f"{len(others.took_ms)} others' calls, slowest {max(others.took_ms, default=0):.0f} ms", f"{grown / 1024:+.1f} MiB"])
    return rows, found
