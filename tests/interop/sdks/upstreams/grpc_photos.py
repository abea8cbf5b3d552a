"""A gRPC server behind TLS by an authority of its own: one call of each kind, with trailers and status details. Messages are plain bytes."""

import time
from concurrent import futures

import grpc

from people import GONE, LOGINS, PEOPLE

same = lambda text: text


class Photos:
    def __init__(self, key, cert):
        self.calls, self.faults = [], []
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        kinds = {
            "Get": grpc.unary_unary_rpc_method_handler(self.get, same, same),
            "List": grpc.unary_stream_rpc_method_handler(self.list, same, same),
            "Upload": grpc.stream_unary_rpc_method_handler(self.upload, same, same),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, same, same),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow, same, same),
        }
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("interop.Photos", kinds)])
        port = self.server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, cert)]))
        self.host = f"localhost:{port}"
        self.origin = f"https://{self.host}"
        self.server.start()

    def user(self, context, call):
        metadata = list(context.invocation_metadata())
        for name, value in metadata:
            if name.startswith(("x-end-user", "x-attache", "proxy-")) or any(person in str(value) for person in [*PEOPLE, GONE]):
                self.faults.append(f"{call} came with {name}: {value}")
        user = LOGINS.get(dict(metadata).get("authorization", "").removeprefix("Bearer "))
        self.calls.append((user, "gRPC", call))
        if user is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
        return user

    def get(self, asked, context):
        user = self.user(context, "Get")
        if asked == b"missing":
            context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x05\x12\x07details"), ("x-reason", "gone")])
            context.abort(grpc.StatusCode.NOT_FOUND, f"no photo of {user} – here")
        if asked == b"busy":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
        context.set_trailing_metadata([("x-cost", "3"), ("x-raw-bin", b"\x00\xff")])
        return f"{user}:{asked.decode()}".encode()

    def list(self, asked, context):
        user = self.user(context, "List")
        for n in range(int(asked)):
            yield f"{user}-{n}".encode()

    def upload(self, chunks, context):
        user = self.user(context, "Upload")
        return f"{user}:{sum(len(chunk) for chunk in chunks)}".encode()

    def chat(self, said, context):
        user = self.user(context, "Chat")
        for one in said:
            yield f"{user}:".encode() + one

    def slow(self, asked, context):
        self.user(context, "Slow")
        ended = []
        context.add_callback(lambda: ended.append(True))
        for _ in range(200):
            if ended:
                self.calls.append(("-", "gRPC", "cancelled"))
                break
            time.sleep(0.02)
        return b"late"

    def close(self):
        self.server.stop(None)
