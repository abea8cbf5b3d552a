#!/usr/bin/env python3
"""Sits on one attache with thousands of idle and slow clients (slowloris), and tells what other users' calls and its memory make of it.

    python3 tests/soak/swarm.py --attache target/release/attache [--idle 10000] [--slow 1000] [--seconds 20] [--limit-ratio 3]

Slow clients are a third each: a byte of head a second, a byte of body a second, and readers of a large answer at a kilobyte a second. Meanwhile calls go
by turns to this attache and to a second one that nobody sits on, over kept connections and to an upstream that the swarm leaves alone: what the machine's
noise does, it does to both. Memory is judged always; times only with `--limit-ratio`, for they say little on a busy machine.
"""

import argparse
import os
import selectors
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kill"))
from rig import Rig, free_ports  # noqa: E402  (found beside this folder)

USER = "megan@example.com"
CALM, NOWHERE = "/calm/healthz", "/nowhere"
BIG = 64 * 1024 * 1024
# One source address has some 28,000 ports; each takes this many.
PER_ADDRESS = 4_000
CALLS_EVERY_S = 0.005
# Resident memory: what a connection may cost at most, and what the process may grow by besides.
IDLE_KIB, SLOW_KIB, SLACK_KIB = 24, 512, 48 * 1024
FILES_WANTED_SPARE = 500


def connect(port, number, buffer=None):
    """From 127.0.0.2 on, so that no address runs out of ports."""
    stream = socket.socket()
    if buffer:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    stream.settimeout(30)
    stream.bind((f"127.0.0.{2 + number // PER_ADDRESS}", 0))
    stream.connect(("127.0.0.1", port))
    return stream


class CalmRig(Rig):
    """With a route to an upstream of its own besides the sandbox, which the slow clients keep busy: the health listener of the second attache."""

    def __init__(self, attache, calm_port):
        self.calm_port = calm_port
        super().__init__(attache, ["--token-life", "1h"])

    def write_routes(self):
        super().write_routes()
        with open(os.path.join(self.folder, "routes.yaml"), "a", encoding="utf-8") as routes:
            routes.write(f"  - {{match: '/calm/{{*rest}}', as: none, upstream: 'http://127.0.0.1:{self.calm_port}/{{rest}}'}}\n")


class Slow:
    """One slow client: what it sends first, what it sends each second, and how much it reads each second."""

    def __init__(self, port, number):
        self.kind = ("head", "body", "reader")[number % 3]
        self.stream = connect(port, number, buffer=4096 if self.kind == "reader" else None)
        head = f"Host: localhost\r\nX-End-User: {USER}\r\n"
        first = {
            "head": f"GET /sandbox/me HTTP/1.1\r\n{head}X-A: ",
            "body": f"POST /sandbox/sink HTTP/1.1\r\n{head}Content-Length: 100000\r\n\r\n",
            "reader": f"GET /sandbox/bytes/{BIG} HTTP/1.1\r\n{head}\r\n",
        }[self.kind]
        self.stream.sendall(first.encode())
        self.stream.setblocking(False)
        self.ended = False

    def step(self):
        try:
            if self.kind == "reader":
                self.ended = not self.stream.recv(1024)
            else:
                self.stream.send(b"a")
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True


class Swarm:
    def __init__(self, port, idle, slow):
        self.port, self.idle, self.slow, self.refused = port, [], [], 0
        self.stopping = threading.Event()
        for number in range(idle):
            self.idle.append(connect(port, number))
        for number in range(slow):
            self.slow.append(Slow(port, idle + number))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        """Each slow client takes its step once a second, spread over the second."""
        while not self.stopping.is_set():
            began, share = time.monotonic(), max(1, len(self.slow) // 50)
            for begin in range(0, len(self.slow), share):
                for client in self.slow[begin:begin + share]:
                    client.step()
                self.stopping.wait(max(0.0, began + (begin + share) / len(self.slow) - time.monotonic()))
            self.stopping.wait(0.01)

    def gone(self):
        """How many the server has let go, by kind."""
        poll = selectors.DefaultSelector()
        for stream in self.idle:
            poll.register(stream, selectors.EVENT_READ)
        closed = len(poll.select(0))
        poll.close()
        kinds = {kind: sum(client.ended for client in self.slow if client.kind == kind) for kind in ("head", "body", "reader")}
        return {"idle": closed, **kinds}

    def close(self):
        self.stopping.set()
        self.thread.join()
        for stream in [*self.idle, *(client.stream for client in self.slow)]:
            stream.close()


class Caller:
    """One kept connection that makes small calls."""

    def __init__(self, port):
        self.port, self.stream = port, None

    def call(self, path=CALM):
        """Seconds that one call took, or attache's own refusal where no route takes the path. A connection that the server ended is opened anew."""
        began = time.perf_counter()
        if self.stream is None:
            self.stream = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        read = b""
        while (length := whole_length(read)) is None or len(read) < length:
            more = self.stream.recv(65_536)
            assert more, "the connection ended"
            read += more
        assert read.startswith(b"HTTP/1.1 200" if path == CALM else b"HTTP/1.1 404"), read[:200]
        return time.perf_counter() - began


def whole_length(read):
    """How long an answer is, head and body; `None` while its head is not whole."""
    head, end, _ = read.partition(b"\r\n\r\n")
    if not end:
        return None
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head) + 4 + (int(lengths[0]) if lengths else 0)


def by_turns(ports, seconds):
    """Milliseconds that calls took at each port, and attache's own answers at the first; one in ten over a new connection."""
    took, callers, number = [[] for _ in range(len(ports) + 1)], [Caller(port) for port in ports], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number += 1
        for times, caller in zip(took, callers):
            if number % 10 == 0:
                caller.stream.close()
                caller.stream = None
            times.append(caller.call() * 1000)
        took[-1].append(callers[0].call(NOWHERE) * 1000)
        time.sleep(CALLS_EVERY_S)
    return took


def quantile(times, part):
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def told(name, times):
    print(f"{name}: {len(times)} calls, p50 {quantile(times, 0.5):.2f} ms, p99 {quantile(times, 0.99):.2f} ms, most {max(times):.1f} ms", flush=True)
    return quantile(times, 0.99)


def raise_file_limit():
    """How many files a process may open now; the children inherit it."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def run(arguments, rigs):
    (quiet, rig), failed = rigs, []
    ports = [rig.proxy_port, quiet.proxy_port]
    by_turns(ports, 0.5)  # tokens read, connections opened
    before = by_turns(ports, arguments.seconds / 4)
    calm = told("before the swarm", before[0])
    told("the other one", before[1])
    told("its own answers", before[2])
    start = rig.server.memory()[0]
    began = time.monotonic()
    swarm = Swarm(rig.proxy_port, arguments.idle, 0)
    print(f"{arguments.idle} idle connections opened in {time.monotonic() - began:.1f} s", flush=True)
    time.sleep(1)
    with_idle = rig.server.memory()[0]
    swarm.close()
    time.sleep(1)
    rig.server.reset_peak()
    swarm = Swarm(rig.proxy_port, arguments.idle, arguments.slow)
    try:
        took = by_turns(ports, arguments.seconds)
        busy, besides = told("with the swarm", took[0]), told("the other one, by turns", took[1])
        told("its own answers with the swarm", took[2])
        gone, (resident, peak) = swarm.gone(), rig.server.memory()
    finally:
        swarm.close()
    time.sleep(2)
    after = rig.server.memory()[0]
    one_idle, one_slow = (with_idle - start) / max(1, arguments.idle), (peak - with_idle) / max(1, arguments.slow)
    print(f"resident: {start / 1024:.1f} MiB at first, {with_idle / 1024:.1f} with the idle ones ({one_idle:.2f} KiB each), {resident / 1024:.1f} with all, "
          f"{peak / 1024:.1f} at most ({one_slow:.1f} KiB a slow one), {after / 1024:.1f} after they went")
    print("let go by the server: " + ", ".join(f"{count} {kind}" for kind, count in gone.items()))
    bound = start + SLACK_KIB + arguments.idle * IDLE_KIB + arguments.slow * SLOW_KIB
    if peak > bound:
        failed.append(f"resident memory of {peak / 1024:.1f} MiB is over the bound of {bound / 1024:.1f} MiB")
    if arguments.limit_ratio and busy > arguments.limit_ratio * max(calm, besides, 1.0):
        failed.append(f"p99 of {busy:.2f} ms is over {arguments.limit_ratio:g} times that of the other one")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", required=True, help="the binary")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--limit-ratio", type=float, default=0, help="fail when p99 is over this many times the undisturbed one's")
    arguments = parser.parse_args()
    files = raise_file_limit()
    most = files - FILES_WANTED_SPARE - 2 * arguments.slow
    if arguments.idle > most:
        print(f"only {most} idle connections: a process may open {files} files")
        arguments.idle = most
    rigs = []
    try:
        # The second one's admin listener is the upstream of both, so it starts first.
        rigs.append(CalmRig(arguments.attache, free_ports(1)[0]))
        rigs[0].calm_port = rigs[0].admin_port
        rigs[0].write_routes()
        rigs[0].start()
        rigs.append(CalmRig(arguments.attache, rigs[0].admin_port))
        rigs[1].connect([USER])
        rigs[1].start()
        failed = run(arguments, rigs)
    finally:
        for rig in rigs:
            rig.close()
    for fault in failed:
        print(f"FAILED: {fault}")
    print("1 failed" if failed else "passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
