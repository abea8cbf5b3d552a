"""The recording upstream: raw sockets, every byte of every connection kept, and the strict reader's word on them.

Answers tell what was seen (`X-Saw: METHOD TARGET`), so that a client notices an answer that is not its own. Requests name their case in the target
(`/any/c0001a/…`), so that cases may run side by side over connections that a proxy shares among them.
"""

import re
import socket
import threading

from strict import Reader

CASE = re.compile(rb"/(?:any|tok)/(c[0-9]{4}[a-z])/")
# A 413 while the body still comes: what a proxy does with the rest is its own trouble.
EARLY = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nX-Saw: %s\r\n\r\nearly"


class Connection:
    """One connection as it came: its bytes, and what was read in them."""

    def __init__(self):
        self.data, self.answered_early = bytearray(), False
        self.reader, self.tunnelled, self.echoed = Reader(), False, bytearray()

    @property
    def cases(self):
        return {found.decode() for found in CASE.findall(bytes(self.data))}

    @property
    def last_case(self):
        found = CASE.findall(bytes(self.data))
        return found[-1].decode() if found else None


class Recorder:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.lock, self.connections, self.by_case = threading.Lock(), [], {}
        # What to say to `…/ans/NUMBER`, and whether to hang up then.
        self.script = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection()
            with self.lock:
                self.connections.append(connection)
            threading.Thread(target=self.serve, args=(stream, connection), daemon=True).start()

    def serve(self, stream, connection):
        connection.reader.on_head = lambda head: self.early(stream, connection, head)
        with stream:
            try:
                while data := stream.recv(65_536):
                    connection.data += data
                    for request in connection.reader.feed(data):
                        self.note(request)
                        if request.all(b"upgrade") and request.target.endswith(b"/up"):
                            self.tunnel(stream, connection)
                            return
                        if b"/ans/" in request.target:
                            said, is_last = self.script[int(request.target.rsplit(b"/", 1)[1])]
                            stream.sendall(said)
                            if is_last:
                                return
                            continue
                        self.answer(stream, connection, request)
                    if connection.reader.violation:
                        stream.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\nX-Saw: violation\r\n\r\n")
                        return
            except OSError:
                pass

    def tunnel(self, stream, connection):
        """Takes the upgrade, whatever it is to, and echoes. What came before it was taken stands in `connection.reader.buffer`."""
        stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        connection.tunnelled = True
        while data := stream.recv(65_536):
            connection.echoed += data
            stream.sendall(data)

    def early(self, stream, connection, head):
        if b"/early" in head.target:
            connection.answered_early = True
            stream.sendall(EARLY % saw(head))

    def answer(self, stream, connection, request):
        if connection.answered_early:
            connection.answered_early = False
            return
        body = b"" if request.method == b"HEAD" else b"ok"
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Saw: %s\r\n\r\n%s" % (saw(request), body))

    def note(self, request):
        found = CASE.search(request.target)
        with self.lock:
            self.by_case.setdefault(found[1].decode() if found else None, []).append(request)

    def seen(self, case):
        """The whole requests whose target names the case, in the order of their ends."""
        with self.lock:
            return list(self.by_case.get(case, []))

    def begun(self, case):
        """Whether a head of the case came on any connection, whole or not."""
        with self.lock:
            return any(case in connection.cases for connection in self.connections)

    def violations(self):
        """Each violation with the case that was last on its connection."""
        with self.lock:
            return [(one.last_case, one.reader.violation, bytes(one.data[-300:])) for one in self.connections if one.reader.violation]

    def close(self):
        self.listener.close()


def saw(request):
    return b"%s %s" % (request.method, request.target)
