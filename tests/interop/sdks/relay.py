"""Stands between a client and its Attaché, and keeps what Attaché says: no token may be in it."""

import socket
import threading


class Relay:
    def __init__(self, port):
        self.to = port
        self.said = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kept = bytearray()
            self.said.append(kept)
            threading.Thread(target=pass_on, args=(client, server, None), daemon=True).start()
            threading.Thread(target=pass_on, args=(server, client, kept), daemon=True).start()

    def told(self, text):
        """Whether these bytes stand in an answer: not in compressed ones, which the emulators do not give, nor in HTTP/2's headers."""
        return any(text in kept for kept in self.said)

    def close(self):
        self.listener.close()


def pass_on(source, to, kept):
    try:
        while part := source.recv(65536):
            if kept is not None:
                kept += part
            to.sendall(part)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, to):
            one.close()
