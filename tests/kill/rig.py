"""What the kill and soak tests stand on: a sandbox and an attache as processes of their own, on free ports, in a temporary folder."""

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PROVIDER = "sandbox"
CLIENT_ID = "printpixie"
CLIENT_SECRET = "sandbox-secret"
SCOPES = ["photos.read", "photos.write"]
READY_WITHIN_S = 20
CALL_WITHIN_S = 30
# Below the range that the kernel takes outgoing ports from: a client's own socket can never sit on a port while its server is down.
PORTS = range(20_000, 32_000)

ROUTES = """\
listen:
  proxy: 127.0.0.1:{proxy}
  public: 127.0.0.1:{public}
  admin: 127.0.0.1:{admin}
store:
{store}
providers:
  sandbox:
    client_id: {client_id}
    client_secret: {client_secret}
    scopes: [photos.read, photos.write]
    authorize_url: http://127.0.0.1:{sandbox}/authorize
    token_url: http://127.0.0.1:{sandbox}/token
    revoke_url: http://127.0.0.1:{sandbox}/revoke
    token_hosts: ["127.0.0.1:{sandbox}"]
{provider_keys}
routes:
  - match: /sandbox/{{*rest}}
    provider: sandbox
    upstream: http://127.0.0.1:{sandbox}/v1/{{rest}}
"""


class Refused(Exception):
    """A process did not start; the text is its log's end."""


def free_ports(count):
    """Ports that nothing listens on just now."""
    found = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def call(port, method, path, headers=None, body=None, timeout=CALL_WITHIN_S):
    """One call on a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


class Process:
    """A child with its log in a file; `mark` is where the log of the present life begins."""

    def __init__(self, command, folder, log_name, env=None):
        self.command, self.folder = command, folder
        self.log_path = os.path.join(folder, log_name)
        self.env = {**os.environ, **(env or {})}
        self.child, self.mark = None, 0

    def launch(self):
        """Starts it and waits for nothing."""
        self.mark = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(self.command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, ready):
        """Starts it, and returns once `ready` stands in its log."""
        self.launch()
        give_up = time.monotonic() + READY_WITHIN_S
        while ready not in self.log():
            if self.child.poll() is not None:
                raise Refused(f"{' '.join(self.command)} ended with {self.child.returncode}:\n{self.log()[-2000:]}")
            if time.monotonic() > give_up:
                self.kill()
                raise Refused(f"{' '.join(self.command)} was not ready within {READY_WITHIN_S} s:\n{self.log()[-2000:]}")
            time.sleep(0.003)

    def log(self):
        """The log since the last start."""
        with open(self.log_path, "rb") as log:
            log.seek(self.mark)
            return log.read().decode(errors="replace")

    def lines(self):
        """The whole lines of a JSON log since the last start."""
        for line in self.log().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def terminate(self, within_s=60):
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(timeout=within_s)

    def memory(self):
        """Resident memory now and at its highest, in KiB."""
        found = {}
        with open(f"/proc/{self.child.pid}/status", encoding="ascii") as status:
            for line in status:
                name, _, rest = line.partition(":")
                if name in ("VmRSS", "VmHWM"):
                    found[name] = int(rest.split()[0])
        return found["VmRSS"], found["VmHWM"]

    def reset_peak(self):
        """Lets VmHWM begin anew, where the kernel allows it."""
        try:
            with open(f"/proc/{self.child.pid}/clear_refs", "w", encoding="ascii") as clear:
                clear.write("5")
        except OSError:
            pass

    def end(self):
        if self.child is not None and self.child.poll() is None:
            self.kill()


class Rig:
    """A sandbox and an attache that routes `/sandbox/…` to its API."""

    def __init__(self, attache, sandbox_args=(), provider_keys="", log="info", store="  sled: {path: ./attache.db}", env=None):
        self.attache = os.path.abspath(attache)
        self.folder = tempfile.mkdtemp(prefix="attache-rig-")
        self.sandbox_port, self.proxy_port, self.public_port, self.admin_port = free_ports(4)
        self.provider_keys, self.store = provider_keys, store
        listen = f"127.0.0.1:{self.sandbox_port}"
        self.sandbox = Process([self.attache, "sandbox", "--listen", listen, *sandbox_args], self.folder, "sandbox.log", {"RUST_LOG": "warn,attache::cli=info"})
        self.server = Process([self.attache, "--log-format", "json", "run", "-c", "routes.yaml"], self.folder, "attache.log", {"RUST_LOG": log, **{name: value.format(folder=self.folder) for name, value in (env or {}).items()}})
        self.write_routes()
        try:
            self.sandbox.start("the sandbox is ready")
        except BaseException:
            self.close()
            raise

    def write_routes(self):
        keys = "".join(f"    {line}\n" for line in self.provider_keys.splitlines())
        text = ROUTES.format(
            store=self.store, proxy=self.proxy_port, public=self.public_port, admin=self.admin_port, sandbox=self.sandbox_port,
            client_id=CLIENT_ID, client_secret=CLIENT_SECRET, provider_keys=keys,
        )
        with open(os.path.join(self.folder, "routes.yaml"), "w", encoding="utf-8") as routes:
            routes.write(text)

    def start(self):
        """Starts attache; where another program took a port meanwhile, on others. Returns how many seconds it took to be ready."""
        began = time.monotonic()
        for tries_left in (2, 1, 0):
            try:
                self.server.start("attache is ready")
                return time.monotonic() - began
            except Refused as refused:
                if "cannot listen on" not in str(refused) or tries_left == 0:
                    raise
                self.proxy_port, self.public_port, self.admin_port = free_ports(3)
                self.write_routes()

    def control(self, **switches):
        if not switches:
            status, _, body = call(self.sandbox_port, "GET", "/control")
        else:
            headers = {"Content-Type": "application/json"}
            status, _, body = call(self.sandbox_port, "POST", "/control", headers, json.dumps(switches))
        assert status == 200, (status, body)
        return json.loads(body)

    def grants(self):
        """Each user's newest grant, as the sandbox lists it."""
        status, _, body = call(self.sandbox_port, "GET", "/control/grants")
        assert status == 200, (status, body)
        newest = {}
        for grant in json.loads(body)["items"]:
            known = newest.get(grant["user"])
            if known is None or grant["id"] > known["id"]:
                newest[grant["user"]] = grant
        return newest

    def connect(self, users):
        """Gives each user a new grant and imports it. Attache must not be running."""
        lines = []
        for user in users:
            asked = json.dumps({"user": user, "scopes": SCOPES, "client_id": CLIENT_ID})
            status, _, body = call(self.sandbox_port, "POST", "/control/grants", {"Content-Type": "application/json"}, asked)
            assert status == 201, (status, body)
            lines.append(json.dumps({"provider": PROVIDER, "end_user": user, **json.loads(body)}))
        self.command("connections", "import", "-c", "routes.yaml", text="\n".join(lines))

    def connection_ids(self):
        """The users by their connection's id. Attache must not be running."""
        listed = self.command("connections", "list", "-c", "routes.yaml", "--json")
        connections = (json.loads(line) for line in listed.splitlines())
        return {connection["id"]: connection["end_user"] for connection in connections}

    def command(self, *arguments, text=None):
        done = subprocess.run([self.attache, *arguments], cwd=self.folder, input=text, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise Refused(f"attache {' '.join(arguments)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def close(self, keep=False):
        self.server.end()
        self.sandbox.end()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
