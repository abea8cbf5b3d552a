"""HTTP/2 clients that nobody here wrote: python h2 with its strict checks on, and nghttp2's h2load."""

import re
import socket
import subprocess
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

PATIENCE_S = 15
BODY = bytes(range(256)) * 400


class Tool:
    family = "h2 client"

    def __init__(self, name):
        self.name = name


def strict_calls(port, context=None):
    """Many calls at once over one connection; the faults."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
        stream = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        if context and stream.selected_alpn_protocol() != "h2":
            return [f"ALPN chose {stream.selected_alpn_protocol()}"]
        peer = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        peer.initiate_connection()
        asked = [(peer.get_next_available_stream_id() + 2 * number, *call) for number, call in enumerate([(b"GET", b""), (b"POST", BODY), (b"HEAD", b""), (b"POST", b""), (b"PUT", BODY)] * 8)]
        left = {}
        for stream_id, method, body in asked:
            fields = [(b":method", method), (b":scheme", b"https" if context else b"http"), (b":authority", b"localhost"), (b":path", b"/any/c0000x/%d" % stream_id)]
            peer.send_headers(stream_id, fields, end_stream=not body)
            if body:
                left[stream_id] = body
        return talk(stream, peer, {stream_id: method for stream_id, method, _ in asked}, left)


def talk(stream, peer, asked, left):
    answers, bodies, ended, give_up = {}, {}, set(), time.monotonic() + PATIENCE_S
    try:
        while ended != set(asked) and time.monotonic() < give_up:
            for stream_id, body in list(left.items()):
                while body and (room := min(peer.local_flow_control_window(stream_id), peer.max_outbound_frame_size)) > 0:
                    part, body = body[:room], body[room:]
                    peer.send_data(stream_id, part, end_stream=not body)
                left[stream_id] = body
                if not body:
                    del left[stream_id]
            stream.sendall(peer.data_to_send())
            data = stream.recv(65_536)
            if not data:
                return ["the connection ended"]
            for event in peer.receive_data(data):
                if isinstance(event, ResponseReceived):
                    answers[event.stream_id] = dict(event.headers)
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                    peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    ended.add(event.stream_id)
                elif isinstance(event, (StreamReset, ConnectionTerminated)):
                    return [f"{event!r}"]
    except (ProtocolError, OSError) as fault:
        return [f"{type(fault).__name__}: {fault}"]
    found = [f"{len(ended)} of {len(asked)} calls ended"] if ended != set(asked) else []
    for stream_id, method in asked.items():
        said = answers.get(stream_id, {})
        if said.get(b":status") != b"200" or not said.get(b"x-saw", b"").endswith(b"/%d" % stream_id):
            found.append(f"stream {stream_id}: {said}")
        if bodies.get(stream_id, b"") != (b"" if method == b"HEAD" else b"ok"):
            found.append(f"stream {stream_id}: a body of {len(bodies.get(stream_id, b''))} bytes")
    return found


def burst(port, calls, clients, streams):
    """h2load's word: a line for the table, and the faults."""
    url = f"http://127.0.0.1:{port}/any/c0000w/a"
    command = ["h2load", "-n", str(calls), "-c", str(clients), "-m", str(streams), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    counted = re.search(r"requests: .*", done.stdout)
    rate = re.search(r"finished in .*", done.stdout)
    said = f"{rate[0] if rate else ''}; {counted[0] if counted else done.stderr[-200:]}"
    whole = re.search(rf"status codes: {calls} 2xx", done.stdout)
    return said, [] if whole else [f"{' '.join(command)}: {said}"]


def suite(ours, has_h2load):
    rows, found = [], []
    tool = Tool("python h2, 40 calls at once")
    faults = strict_calls(ours.port)
    rows.append([tool.name, "; ".join(faults) or "ok"])
    found += [(tool, fault) for fault in faults]
    for calls, clients, streams in ((2000, 10, 10), (1000, 100, 1), (2000, 1, 100)) if has_h2load else ():
        tool = Tool(f"h2load, {clients} connections of {streams} streams")
        said, faults = burst(ours.port, calls, clients, streams)
        rows.append([tool.name, said])
        found += [(tool, fault) for fault in faults]
    return rows, found
