#!/usr/bin/env python3
"""Holds attache's resident memory under a limit while gigabytes stream through it, and tells what idle connections cost.

Bodies must stream with back-pressure, never gather in memory, however slow a reader is. Steps: one large download by a quick reader, one by a
reader that pauses, one large upload, eight downloads at once by slow readers and by ones that stop for seconds, eight uploads at once, also to an
API that does not read yet; then idle connections (told, not judged).
"""

import argparse
import os
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kill"))
from rig import Rig  # noqa: E402  (found beside this folder)

USER = "megan@example.com"
LIMIT_KIB = 64 * 1024
MIB = 1024 * 1024
CHUNK = MIB
SAMPLE_EVERY_S = 0.05
PARALLEL = 8
IDLE_CONNECTIONS = 10_000
STALL_S = 3


class Watch:
    """Samples a process's resident memory until left."""

    def __init__(self, process):
        self.process, self.most_kib, self.stopping = process, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopping.wait(SAMPLE_EVERY_S):
            self.most_kib = max(self.most_kib, self.process.memory()[0])

    def __enter__(self):
        self.process.reset_peak()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        resident, peak = self.process.memory()
        self.most_kib = max(self.most_kib, resident, peak)


def connect(port):
    stream = socket.create_connection(("127.0.0.1", port), timeout=120)
    return stream


def head(stream):
    """Reads an answer's head; returns its status, and what came of the body with it."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = stream.recv(65_536)
        if not more:
            raise AssertionError(f"the connection ended in the head: {read!r}")
        read += more
    answer_head, rest = read.split(b"\r\n\r\n", 1)
    return int(answer_head.split()[1]), rest


def ask(stream, method, path, headers=""):
    stream.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-End-User: {USER}\r\n{headers}\r\n".encode())


def download(port, size, pause_every=0, pause_s=0.0):
    """Reads a body of `size` bytes, pausing after each `pause_every` of them; true if its length and its pattern's samples are right."""
    with connect(port) as stream:
        ask(stream, "GET", f"/sandbox/bytes/{size}")
        status, rest = head(stream)
        assert status == 200, status
        got, since_pause = len(rest), 0
        buffer = memoryview(bytearray(CHUNK))
        while got < size:
            count = stream.recv_into(buffer)
            if count == 0:
                raise AssertionError(f"the body ended after {got} of {size} bytes")
            # Byte i of the body is (i mod 65536) mod 251.
            assert buffer[0] == got % 65_536 % 251, f"a wrong byte at {got}"
            got += count
            since_pause += count
            if pause_every and since_pause >= pause_every:
                since_pause = 0
                time.sleep(pause_s)
        assert got == size, (got, size)


def upload(port, size):
    with connect(port) as stream:
        ask(stream, "POST", "/sandbox/sink", f"Content-Length: {size}\r\nContent-Type: application/octet-stream\r\n")
        chunk = bytes(CHUNK)
        left = size
        while left:
            part = min(left, CHUNK)
            stream.sendall(memoryview(chunk)[:part])
            left -= part
        status, rest = head(stream)
        while b"}" not in rest:
            rest += stream.recv(65_536)
        assert status == 200 and f'"bytes":{size}'.encode() in rest.replace(b" ", b""), (status, rest)


def together(count, work):
    failed = []

    def run():
        try:
            work()
        except Exception as error:  # noqa: BLE001  (told below, by its text)
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[0]


class Soak:
    def __init__(self, rig):
        self.rig, self.passed, self.failed = rig, 0, 0

    def step(self, name, moved_bytes, work):
        began, fault = time.monotonic(), None
        with Watch(self.rig.server) as watch:
            try:
                work()
            except (AssertionError, OSError) as error:
                fault = f"{type(error).__name__}: {error}"
        took_s = time.monotonic() - began
        if fault is None and watch.most_kib >= LIMIT_KIB:
            fault = f"over the limit of {LIMIT_KIB // 1024} MiB"
        rate = f", {moved_bytes / MIB / took_s:.0f} MiB/s" if moved_bytes else ""
        resident = self.rig.server.memory()[0]
        print(f"{name}: {took_s:.1f} s{rate}; resident most {watch.most_kib / 1024:.1f} MiB, after {resident / 1024:.1f} MiB", end="")
        print(f"; FAILED: {fault}" if fault else "", flush=True)
        self.failed += fault is not None
        self.passed += fault is None


def idle(rig, count):
    """Opens connections that make one call each and then stay; tells what they cost."""
    before = rig.server.memory()[0]
    streams = []
    try:
        for _ in range(count):
            stream = connect(rig.proxy_port)
            streams.append(stream)
        time.sleep(1)
        opened = rig.server.memory()[0]
        for stream in streams:
            ask(stream, "GET", "/sandbox/me")
            status, rest = head(stream)
            assert status == 200 and rest, status
        time.sleep(1)
        used = rig.server.memory()[0]
        each = (used - before) / len(streams)
        print(
            f"{len(streams)} idle connections: resident before {before / 1024:.1f} MiB, open {opened / 1024:.1f} MiB, "
            f"after one call each {used / 1024:.1f} MiB: {each:.1f} KiB a connection"
        )
    finally:
        for stream in streams:
            stream.close()
    time.sleep(2)
    print(f"after they closed: {rig.server.memory()[0] / 1024:.1f} MiB")


def raise_file_limit():
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    except (ImportError, ValueError, OSError):
        return 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", required=True, help="the binary")
    parser.add_argument("--gib", type=float, default=2.0, help="how much each of the large transfers moves")
    parser.add_argument("--idle", type=int, default=IDLE_CONNECTIONS, help="how many idle connections")
    arguments = parser.parse_args()
    files = raise_file_limit()
    size = int(arguments.gib * 1024 * MIB)
    rig = Rig(arguments.attache, ["--token-life", "1h"])
    try:
        rig.connect([USER])
        rig.start()
        port, soak = rig.proxy_port, Soak(rig)
        print(f"at start: resident {rig.server.memory()[0] / 1024:.1f} MiB")
        soak.step(f"download of {arguments.gib:g} GiB", size, lambda: download(port, size))
        soak.step(f"download of {arguments.gib:g} GiB, 20 ms pause every 8 MiB", size, lambda: download(port, size, 8 * MIB, 0.02))
        soak.step(f"upload of {arguments.gib:g} GiB", size, lambda: upload(port, size))
        part = max(size // PARALLEL, 1)
        soak.step(
            f"{PARALLEL} downloads at once of {part / MIB:.0f} MiB, 2 ms pause every MiB",
            part * PARALLEL, lambda: together(PARALLEL, lambda: download(port, part, MIB, 0.002)),
        )
        stalled = min(part, 64 * MIB)
        soak.step(
            f"{PARALLEL} downloads at once of {stalled / MIB:.0f} MiB, readers that stop for {STALL_S} s every 32 MiB",
            stalled * PARALLEL, lambda: together(PARALLEL, lambda: download(port, stalled, 32 * MIB, STALL_S)),
        )
        soak.step(f"{PARALLEL} uploads at once of {part / MIB:.0f} MiB", part * PARALLEL, lambda: together(PARALLEL, lambda: upload(port, part)))
        rig.control(api_delay_ms=STALL_S * 1000)
        soak.step(
            f"{PARALLEL} uploads at once of {stalled / MIB:.0f} MiB, an API that reads nothing for {STALL_S} s",
            stalled * PARALLEL, lambda: together(PARALLEL, lambda: upload(port, stalled)),
        )
        rig.control(api_delay_ms=0)
        idle(rig, min(arguments.idle, files - 200))
    finally:
        rig.close()
    print(f"{soak.passed} passed, {soak.failed} failed")
    sys.exit(1 if soak.failed else 0)


if __name__ == "__main__":
    main()
