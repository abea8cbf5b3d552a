"""grpcio: one call of each kind, over HTTP/2 without TLS to Attaché, which speaks TLS to the server."""

import queue

import grpc
from common import ATTACHE, GONE, for_each_user, raises

SERVICE = "/interop.Photos/"


def test(user, login):
    # docs: begin
    channel = grpc.insecure_channel(ATTACHE.removeprefix("http://"))
    who = [("x-end-user", user)]
    get = channel.unary_unary("/interop.Photos/Get")
    # docs: end
    with channel:
        answer, call = get.with_call(b"1", metadata=who, timeout=10)
        trailers = dict(call.trailing_metadata())
        assert answer == f"{login}:1".encode() and call.code() == grpc.StatusCode.OK
        assert (trailers["x-cost"], trailers["x-raw-bin"]) == ("3", b"\x00\xff"), trailers

        # Many small messages at once, each a DATA frame of its own: no end may take them for an attack.
        listed = list(channel.unary_stream(SERVICE + "List")(b"3000", metadata=who, timeout=20))
        assert listed == [f"{login}-{n}".encode() for n in range(3000)]
        assert channel.stream_unary(SERVICE + "Upload")((b"x" for _ in range(3000)), metadata=who, timeout=20) == f"{login}:3000".encode()
        chunks = (bytes(60_000) for _ in range(20))
        assert channel.stream_unary(SERVICE + "Upload")(chunks, metadata=who, timeout=10) == f"{login}:1200000".encode()

        # Each message waits for the answer to the one before: neither side may be held back until the other ends.
        to_say = queue.Queue()
        chat = channel.stream_stream(SERVICE + "Chat")(iter(to_say.get, None), metadata=who, timeout=10)
        for n in range(20):
            to_say.put(f"hello {n}".encode())
            assert next(chat) == f"{login}:hello {n}".encode()
        to_say.put(None)
        assert list(chat) == [] and chat.code() == grpc.StatusCode.OK

        error = raises(grpc.RpcError, lambda: get(b"missing", metadata=who, timeout=10))
        trailers = dict(error.trailing_metadata())
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, f"no photo of {login} – here"), error
        assert (trailers["grpc-status-details-bin"], trailers["x-reason"]) == (b"\x08\x05\x12\x07details", "gone"), trailers
        assert raises(grpc.RpcError, lambda: get(b"busy", metadata=who, timeout=10)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        slow = channel.unary_unary(SERVICE + "Slow")
        assert raises(grpc.RpcError, lambda: slow(b"", metadata=who, timeout=0.5)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        refused = raises(grpc.RpcError, lambda: get(b"1", metadata=[("x-end-user", GONE)], timeout=10))
        assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAUTHENTICATED, "invalid token"), refused
        unknown = raises(grpc.RpcError, lambda: get(b"1", metadata=[("x-end-user", "nobody@personalemail.com")], timeout=10))
        assert unknown.code() == grpc.StatusCode.UNAUTHENTICATED, unknown
        assert get(b"2", metadata=who, timeout=10) == f"{login}:2".encode()


for_each_user(test)
