"""PostgreSQL and Redis as processes of the tests' own, on free ports, in temporary folders; durable, as operators run them."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from rig import free_ports

READY_WITHIN_S = 30


def find(program):
    """Debian keeps PostgreSQL's programs out of the path."""
    places = [os.environ.get("PATH", "")]
    try:
        versions = sorted(os.listdir("/usr/lib/postgresql"), key=lambda name: -int(name) if name.isdigit() else 0)
        places += [f"/usr/lib/postgresql/{version}/bin" for version in versions]
    except OSError:
        pass
    return shutil.which(program, path=os.pathsep.join(places))


def missing(store):
    """What is not there of what a store's tests need."""
    needed = {"sled": (), "postgres": ("postgres", "initdb"), "redis": ("redis-server",)}[store]
    return [program for program in needed if find(program) is None]


class Database:
    """One server; `kill` and `start` keep its data."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="attache-db-")
        (self.port,) = free_ports(1)
        self.child = None

    def spawn(self, command, **options):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        give_up = time.monotonic() + READY_WITHIN_S
        while not self.is_ready():
            if self.child.poll() is not None or time.monotonic() > give_up:
                with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
                    raise RuntimeError(f"{command[0]} did not start: {log.read()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how=signal.SIGKILL):
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(how)
            self.child.wait(timeout=60)

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Database):
    name = "postgres"

    def __init__(self):
        super().__init__()
        self.user = self.group = None
        if os.geteuid() == 0:
            # It refuses to run as root.
            nobody = next((pwd.getpwnam(name) for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), None)
            self.user, self.group = nobody.pw_uid, nobody.pw_gid
            os.chown(self.folder, self.user, self.group)
        self.data = os.path.join(self.folder, "data")
        command = [find("initdb"), "-D", self.data, "-U", "attache", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **self.identity())
        self.start()

    def identity(self):
        return {} if self.user is None else {"user": self.user, "group": self.group, "extra_groups": []}

    def start(self):
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}", "-c", f"unix_socket_directories={self.folder}", "-c", "max_connections=200"]
        self.spawn([find("postgres"), "-D", self.data, *settings], cwd=self.folder, **self.identity())

    def stop(self, how=signal.SIGQUIT):
        # SIGQUIT is PostgreSQL's own crash: all its processes end at once, and the next start recovers. A killed parent would leave children behind.
        super().stop(how)

    def is_ready(self):
        """A start-up packet that is answered by anything but "starting up" (SQLSTATE 57P03)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                body = b"\x00\x03\x00\x00user\x00attache\x00database\x00postgres\x00\x00"
                probe.sendall((len(body) + 4).to_bytes(4, "big") + body)
                return b"57P03" not in (answer := probe.recv(512)) and answer != b""
        except OSError:
            return False

    def url(self, port=None):
        return f"postgres://attache@127.0.0.1:{port or self.port}/postgres"


class Redis(Database):
    name = "redis"

    def __init__(self):
        super().__init__()
        self.start()

    def start(self):
        settings = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.folder, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.spawn([find("redis-server"), *settings])

    def is_ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def url(self, port=None):
        return f"redis://127.0.0.1:{port or self.port}/0"


def database(store):
    return {"postgres": Postgres, "redis": Redis}[store]()


def store_lines(store, url, keys):
    """`store:` of a config on a shared store."""
    return f"  {store}: {{url: '{url}'}}\n  encryption_keys: ['{keys}']\n"
