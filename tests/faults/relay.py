"""A TCP relay between two programs that does to them what networks do: delays, resets, silence, trickles, cuts."""

import asyncio
import socket
import struct
import threading

CHUNK = 16 * 1024


class Relay:
    """Listens on a port of its own and passes on to another. `set` changes what happens to new connections and to those that stand."""

    def __init__(self, target_port, port):
        self.target_port, self.port = target_port, port
        self.mode, self.amount = "pass", 0
        self.connections = set()
        self.accepted = 0
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def run(self, started):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", self.port))
        started.set()
        self.loop.run_forever()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()

    def set(self, mode, amount=0):
        """`pass`; `latency` of so many ms each way; `reset` at once; `hang`: half-open, nothing passes and nothing ends; `trickle` the answers at so
        many bytes a second; `cut` each answer after so many bytes; `down`: nobody listens."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(self.change, mode, amount, done)
        done.wait()

    def change(self, mode, amount, done):
        was, self.mode, self.amount = self.mode, mode, amount
        if mode == "down" and was != "down":
            self.server.close()
        if was == "down" and mode != "down":
            # Synchronously bound, so that `set` returns with the listener there.
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", self.port))
            sock.listen(512)
            sock.setblocking(False)
            self.loop.create_task(self.listen_again(sock))
        if mode in ("reset", "down"):
            for writer in list(self.connections):
                abort(writer)
        if was == "hang" and mode != "hang":
            # What was cut off by a broken network comes back as no connection at all.
            for writer in list(self.connections):
                abort(writer)
        done.set()

    async def listen_again(self, sock):
        self.server = await asyncio.start_server(self.serve, sock=sock)

    async def serve(self, reader, writer):
        self.accepted += 1
        if self.mode in ("reset", "down"):
            abort(writer)
            return
        self.connections.add(writer)
        other_writer = None
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            self.connections.add(other_writer)
            await asyncio.gather(self.pump(reader, other_writer, False), self.pump(other_reader, writer, True))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, other_writer):
                if end is not None:
                    self.connections.discard(end)
                    abort(end)

    async def pump(self, reader, writer, is_answer):
        passed = 0
        while True:
            data = await reader.read(CHUNK)
            while self.mode == "hang":
                await asyncio.sleep(0.05)
            if self.mode == "latency":
                await asyncio.sleep(self.amount / 1000)
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            if self.mode == "cut" and is_answer and passed + len(data) > self.amount:
                writer.write(data[: max(0, self.amount - passed)])
                await writer.drain()
                raise ConnectionResetError("cut")
            if self.mode == "trickle" and is_answer:
                for start in range(0, len(data)):
                    writer.write(data[start : start + 1])
                    await writer.drain()
                    await asyncio.sleep(1 / self.amount if self.mode == "trickle" else 0)
            else:
                writer.write(data)
                await writer.drain()
            passed += len(data)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=5)


def abort(writer):
    """Ends by RST, as a crashed or a broken peer's host does."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()
