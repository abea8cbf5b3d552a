"""A proxy that does what none may: it unfolds lines and passes all other bytes on, whatever they mean. The suite must flag it."""

import re
import socket
import threading


class Sloppy:
    def __init__(self, upstream_port):
        self.upstream_port = upstream_port
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            with client, socket.create_connection(("127.0.0.1", self.upstream_port)) as upstream:
                threading.Thread(target=self.back, args=(upstream, client), daemon=True).start()
                while data := client.recv(65_536):
                    upstream.sendall(re.sub(rb"\r?\n[ \t]+", b" ", data))
        except OSError:
            pass

    def back(self, upstream, client):
        try:
            while data := upstream.recv(65_536):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()
