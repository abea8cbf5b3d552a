"""websockets: the handshake carries the token, and both ends are the real ones."""

import json

from common import ATTACHE, GONE, for_each_user, raises
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def test(user, login):
    # docs: begin
    socket = connect(ATTACHE.replace("http://", "ws://") + "/live/events?x=1", additional_headers={"X-End-User": user}, subprotocols=["photos.v1"])
    # docs: end
    with socket:
        assert socket.subprotocol == "photos.v1"
        assert json.loads(socket.recv(timeout=10)) == {"hello": login}
        for message in ("hello", bytes(range(256)), "ü" * 70_000, bytes(1_000_000 // 2)):
            socket.send(message)
            assert socket.recv(timeout=10) == message
        assert socket.ping().wait(10)
        socket.send("bye")
        closed = raises(ConnectionClosed, lambda: socket.recv(timeout=10))
        assert (closed.rcvd.code, closed.rcvd.reason) == (4001, f"bye {login}"), closed
    refused = raises(InvalidStatus, lambda: connect(ATTACHE.replace("http://", "ws://") + "/live/events", additional_headers={"X-End-User": GONE}))
    assert refused.response.status_code == 401 and json.loads(refused.response.body) == {"error": "invalid_token"}, refused.response


for_each_user(test)
