"""Strict peers on both ends: python h11 and h2, which raise at whatever breaks the RFCs. Attaché's own frames and heads must never make them."""

import hashlib
import os
import socket
import ssl
import subprocess
import threading

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

PATIENCE_S = 20
BIG = 300_000


def certificate(folder):
    """A CA of one's own, and a certificate of it for localhost; the paths of CA, certificate and key."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=differential test CA")
    openssl("req", *curve, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    with open(os.path.join(folder, "san"), "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "leaf.pem", "-days", "2", "-extfile", "san")
    return [os.path.join(folder, name) for name in ("ca.pem", "leaf.pem", "leaf.key")]


class Seen:
    """One request as a strict upstream read it."""

    def __init__(self, method, target, fields):
        self.method, self.target, self.fields, self.body, self.trailers = method, target, fields, b"", []

    def all(self, name):
        return [value for found, value in self.fields if found == name]


class StrictServer:
    """Accepts, and gives each connection to `serve` on a thread. What the peer did wrong is in `faults`."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port, self.lock, self.seen, self.faults, self.opened = self.listener.getsockname()[1], threading.Lock(), [], [], 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            self.opened += 1
            threading.Thread(target=self.guarded, args=(stream,), daemon=True).start()

    def guarded(self, stream):
        try:
            with stream:
                stream.settimeout(PATIENCE_S)
                self.serve(stream)
        except (h11.RemoteProtocolError, ProtocolError) as fault:
            self.faults.append(f"{type(fault).__name__}: {fault}")
        except OSError:
            pass

    def note(self, seen):
        with self.lock:
            self.seen.append(seen)

    def find(self, mark):
        with self.lock:
            return [seen for seen in self.seen if mark in seen.target]


def answer_of(seen):
    """Status, fields and body by the target's word."""
    digest = hashlib.sha256(seen.body).hexdigest().encode()
    fields = [(b"x-digest", digest)]
    if b"/204" in seen.target:
        return 204, fields, b""
    if b"/304" in seen.target:
        return 304, [*fields, (b"etag", b'"a"')], b""
    if b"/big" in seen.target:
        return 200, [*fields, (b"content-length", b"%d" % BIG)], b"b" * BIG
    if b"/coded" in seen.target:
        return 200, fields, b"coded"
    return 200, [*fields, (b"content-length", b"2")], b"ok"


class StrictH11(StrictServer):
    def serve(self, stream):
        peer, seen = h11.Connection(h11.SERVER), None
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                peer.receive_data(stream.recv(65_536))
            elif isinstance(event, h11.Request):
                seen = Seen(event.method, event.target, list(event.headers))
            elif isinstance(event, h11.Data):
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.trailers = list(event.headers)
                self.note(seen)
                status, fields, body = answer_of(seen)
                if b"/early-hints" in seen.target:
                    stream.sendall(peer.send(h11.InformationalResponse(status_code=103, headers=[("Link", "</a>")])))
                stream.sendall(peer.send(h11.Response(status_code=status, headers=fields)))
                if body and seen.method != b"HEAD":
                    stream.sendall(peer.send(h11.Data(data=body)))
                stream.sendall(peer.send(h11.EndOfMessage(headers=[("x-end", "1")] if b"/trailed" in seen.target and b"/coded" in seen.target else [])) or b"")
                if peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                    return
                peer.start_next_cycle()
            elif isinstance(event, (h11.ConnectionClosed, type(h11.PAUSED))):
                return


class StrictH2(StrictServer):
    """Over TLS, with settings that change amid calls. (Windows only grow: python h2 does not open again a window that it shrank below what was sent.)"""

    def __init__(self, certificate_path, key_path):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate_path, key_path)
        self.context.set_alpn_protocols(["h2"])
        self.refused_once = set()
        super().__init__()

    def serve(self, stream):
        tls = self.context.wrap_socket(stream, server_side=True)
        peer = H2Connection(H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=True))
        peer.initiate_connection()
        tls.sendall(peer.data_to_send())
        streams, unsent = {}, {}
        while data := tls.recv(65_536):
            for event in peer.receive_data(data):
                self.on(event, peer, streams, unsent)
            self.flush(peer, unsent)
            tls.sendall(peer.data_to_send())
            if peer.state_machine.state.name == "CLOSED":
                # Reads on to the end: a socket closed over unread bytes resets the connection, and what was sent would be lost.
                stream_end(tls)
                return

    def refuse_once(self, target):
        is_first = target not in self.refused_once
        self.refused_once.add(target)
        return is_first

    def on(self, event, peer, streams, unsent):
        if isinstance(event, RequestReceived):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            streams[event.stream_id] = Seen(dict(fields).get(b":method"), dict(fields).get(b":path"), fields)
            if b"/excluded" in streams[event.stream_id].target and self.refuse_once(streams[event.stream_id].target):
                # RFC 9113 §6.8: what is above the last stream was not looked at, and may be sent again.
                peer.close_connection(0, last_stream_id=event.stream_id - 2)
        elif isinstance(event, DataReceived):
            streams[event.stream_id].body += event.data
            peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            streams[event.stream_id].trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, StreamEnded):
            seen = streams.pop(event.stream_id)
            if peer.state_machine.state.name == "CLOSED":
                return
            self.note(seen)
            status, fields, body = answer_of(seen)
            if b"/settings" in seen.target:
                peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 70_000 + event.stream_id, SettingCodes.HEADER_TABLE_SIZE: 100 * event.stream_id % 4096, SettingCodes.MAX_FRAME_SIZE: 20_000})
            if b"/refused" in seen.target and self.refuse_once(seen.target):
                peer.reset_stream(event.stream_id, 7)
                return
            if b"/early-hints" in seen.target:
                peer.send_headers(event.stream_id, [(b":status", b"103"), (b"link", b"</a>")])
            is_empty = not body or seen.method == b"HEAD"
            trailed = b"/trailed" in seen.target and not is_empty
            peer.send_headers(event.stream_id, [(b":status", b"%d" % status), *fields], end_stream=is_empty)
            if not is_empty:
                unsent[event.stream_id] = [body, trailed]
            if b"/goaway" in seen.target:
                self.flush(peer, unsent)
                peer.close_connection(0)
        elif isinstance(event, (StreamReset, ConnectionTerminated)):
            unsent.pop(getattr(event, "stream_id", None), None)
        elif isinstance(event, WindowUpdated):
            pass  # `flush` comes after every event

    def flush(self, peer, unsent):
        for stream_id, (body, trailed) in list(unsent.items()):
            while body and (room := min(peer.local_flow_control_window(stream_id), peer.max_outbound_frame_size)) > 0:
                part, body = body[:room], body[room:]
                peer.send_data(stream_id, part, end_stream=not body and not trailed)
            if not body and trailed:
                peer.send_headers(stream_id, [(b"x-end", b"1")], end_stream=True)
            if body:
                unsent[stream_id][0] = body
            else:
                unsent.pop(stream_id)


def stream_end(tls):
    tls.shutdown(socket.SHUT_WR)
    tls.settimeout(2)
    while tls.recv(65_536):
        pass


class Told:
    """An answer as a strict client read it."""

    def __init__(self, status, fields, body, trailers):
        self.status, self.fields, self.body, self.trailers = status, fields, body, trailers

    def header(self, name):
        return b", ".join(value for found, value in self.fields if found == name)


def call(port, method, target, fields=(), parts=(), trailers=(), patience_s=PATIENCE_S):
    """One call by a strict HTTP/1.1 client; raises `h11.RemoteProtocolError` where the answer is not well-formed."""
    peer = h11.Connection(h11.CLIENT)
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as stream:
        stream.sendall(peer.send(h11.Request(method=method, target=target, headers=[("Host", "localhost"), *fields])))
        for part in parts:
            stream.sendall(peer.send(h11.Data(data=part)))
        stream.sendall(peer.send(h11.EndOfMessage(headers=list(trailers))) or b"")
        head, body = None, b""
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                peer.receive_data(stream.recv(65_536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Told(head.status_code, list(head.headers), body, list(event.headers))
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the connection ended before the answer")
