"""A raw HTTP/2 client: frames as they are given, sound or not. hpack and hyperframe do the encoding and hold nothing to any rule."""

import socket
import ssl
import time

import hpack
from client import Answer, Outcome
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE_S = 10
CHUNK = 16_384


class Peer:
    """One connection. What came back is in `answers` (by stream), `resets`, `goaway` and `closed`."""

    def __init__(self, port, settings=None, context=None, greet=True):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.stream = context.wrap_socket(self.stream, server_hostname="localhost")
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.heads, self.bodies, self.ended, self.resets = b"", {}, {}, set(), {}
        self.goaway, self.closed, self.greeted = None, False, False
        if greet:
            self.send(PREFACE, SettingsFrame(0, settings=settings or {}))

    def send(self, *parts):
        """Frames or bytes; false when the peer has hung up."""
        try:
            self.stream.sendall(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))
            return True
        except OSError:
            self.closed = True
            return False

    def headers(self, stream_id, fields, end=False, more=False):
        flags = ([] if more else ["END_HEADERS"]) + (["END_STREAM"] if end else [])
        return HeadersFrame(stream_id, self.encoder.encode(fields, huffman=False), flags=flags)

    def take(self, patience_s):
        """Reads once; false at the end or when nothing came in time."""
        self.stream.settimeout(patience_s)
        try:
            data = self.stream.recv(65_536)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        self.buffer += data
        while len(self.buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
            if len(self.buffer) < 9 + length:
                break
            frame.parse_body(memoryview(self.buffer[9:9 + length]))
            self.buffer = self.buffer[9 + length:]
            self.note(frame)
        return True

    def note(self, frame):
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.greeted = True
            self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, HeadersFrame):
            fields = self.decoder.decode(frame.data, raw=True)
            self.heads.setdefault(frame.stream_id, []).append({bytes(name).decode(): bytes(value).decode("latin-1") for name, value in fields})
        elif isinstance(frame, DataFrame):
            self.bodies[frame.stream_id] = self.bodies.get(frame.stream_id, b"") + frame.data
            if frame.flow_controlled_length:
                self.send(WindowUpdateFrame(0, frame.flow_controlled_length), WindowUpdateFrame(frame.stream_id, frame.flow_controlled_length))
        elif isinstance(frame, RstStreamFrame):
            self.resets[frame.stream_id] = frame.error_code
            self.ended.add(frame.stream_id)
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code
        if "END_STREAM" in frame.flags:
            self.ended.add(frame.stream_id)

    def wait(self, streams, patience_s=PATIENCE_S):
        """Reads until these streams have ended, or the connection has, or time is up."""
        give_up = time.monotonic() + patience_s
        while not self.closed and not set(streams) <= self.ended and (left := give_up - time.monotonic()) > 0:
            self.take(left)
        return self.outcome()

    def outcome(self):
        """As of an HTTP/1 exchange: a reset stream or connection counts as closed, and so does an error that ended its stream."""
        answers = []
        for stream_id in sorted(self.heads):
            head = next((head for head in self.heads[stream_id] if head.get(":status", "").isdigit() and int(head[":status"]) >= 200), None)
            if head is not None:
                answers.append(Answer(int(head[":status"]), head, self.bodies.get(stream_id, b"")))
        refused = any(answer.status >= 400 for answer in answers)
        return Said(answers, bool(self.resets) or self.goaway not in (None, 0) or self.closed or refused, self)

    def close(self):
        self.stream.close()


class Said(Outcome):
    def __init__(self, answers, closed, peer):
        super().__init__(answers, closed, b"")
        self.resets, self.goaway, self.hung_up = dict(peer.resets), peer.goaway, peer.closed

    def __str__(self):
        said = [str(status) for status in self.statuses]
        said += [f"reset({code})" for code in self.resets.values()]
        said += [f"goaway({self.goaway})"] if self.goaway is not None else []
        return " ".join(said) or ("closed" if self.hung_up else "-")


def speaks_h2(port, context=None):
    """Whether the port answers the preface with SETTINGS."""
    try:
        peer = Peer(port, context=context)
        peer.take(PATIENCE_S)
        peer.close()
        return peer.greeted
    except (OSError, ValueError):
        return False


def in_continuations(stream_id, block, pieces, end=False):
    """One header block as HEADERS and CONTINUATION frames."""
    size = max(1, -(-len(block) // pieces))
    cut = [block[begin:begin + size] for begin in range(0, len(block), size)]
    frames = [HeadersFrame(stream_id, cut[0], flags=["END_STREAM"] if end else [])] + [ContinuationFrame(stream_id, part) for part in cut[1:]]
    frames[-1].flags.add("END_HEADERS")
    return frames
