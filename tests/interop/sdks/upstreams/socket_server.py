"""A WebSocket server that demands the bearer in the handshake, agrees on a subprotocol, and echoes text and bytes until told to close."""

import http
import json
import threading

from websockets.sync.server import serve

from people import GONE, LOGINS, PEOPLE


class Sockets:
    def __init__(self):
        self.calls, self.faults = [], []
        self.server = serve(self.talk, "127.0.0.1", 0, process_request=self.judge, subprotocols=["photos.v1"])
        self.host = f"127.0.0.1:{self.server.socket.getsockname()[1]}"
        self.origin = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def judge(self, connection, request):
        for name, value in request.headers.raw_items():
            if name.lower().startswith(("x-end-user", "x-attache", "proxy-")) or any(person in value for person in [*PEOPLE, GONE]):
                self.faults.append(f"the handshake came with {name}: {value}")
        connection.user = LOGINS.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        self.calls.append((connection.user, "WS", request.path))
        if connection.user is None:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, json.dumps({"error": "invalid_token"}))
        return None

    def talk(self, connection):
        connection.send(json.dumps({"hello": connection.user}))
        for message in connection:
            if message == "bye":
                connection.close(4001, f"bye {connection.user}")
                return
            connection.send(message)

    def close(self):
        self.server.shutdown()
