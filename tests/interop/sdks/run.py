#!/usr/bin/env python3
"""Real SDKs through Attaché: only their base URL and one header are changed.

    tests/interop/.venv/bin/python tests/interop/sdks/run.py --attache BINARY [--only NAME]...

Each test has an emulator of an API, an Attaché with a config of its own, and a client script in `clients/`; all run side by side. A client knows where
Attaché is and who the end users are. After it, the emulator says what it saw.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from people import GONE, PEOPLE, TOKENS
from relay import Relay
from upstreams.drive import Drive
from upstreams.dropbox import Dropbox
from upstreams.echo import Echo
from upstreams.github import GitHub
from upstreams.graph import Graph
from upstreams.sessions import Sessions
from upstreams.slack import Slack
from upstreams.stripe import Stripe

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs" / "clients.md"
ADMIN = "interop-admin-token-of-sdks-0123456789"
ENDS_WITHIN_S = 90
PORTS = iter(random.sample(range(20_000, 32_000), 12_000))
GIVING = threading.Lock()


class Test:
    """`route`: what the one route has besides match, provider and upstream. `origin`: the keys of a whole-origin listener instead of a route.
    `prefix`: what the route takes, `also`: further ones with the path of their upstream; `more`: further keys of the config; `provider`: of the registration;
    `at_least`: as many calls the emulator must have seen of each user."""

    def __init__(self, client, upstream, prefix="/api/", route=None, origin=None, more=None, provider=None, also=None, at_least=4):
        self.client, self.upstream, self.prefix = client, upstream, prefix
        self.route, self.origin, self.more, self.provider = route or {}, origin, more or {}, provider or (lambda folder: {})
        self.at_least, self.also = at_least, also or {}


def grpc_server(folder):
    from upstreams.grpc_photos import Photos

    return Photos(*certificate(folder))


def web_sockets(_):
    from upstreams.socket_server import Sockets

    return Sockets()


KEY = "interop-caller-key-0123456789"
CALLERS = {"callers": [{"name": "printer", "key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}

TESTS = {
    "drive-python": Test("drive.py", Drive, "/google/"),
    "drive-node": Test("drive.mjs", Drive, origin={}),
    "graph-node": Test("graph.mjs", Graph, "/graph/"),
    "dropbox-python": Test("dropbox_files.py", Dropbox, "/dropbox-api/", also={"/dropbox-content/": "/"}),
    "octokit-node": Test("octokit.mjs", GitHub, "/github/"),
    "octokit-node-placeholder": Test("octokit-placeholder.mjs", GitHub, origin={"placeholder": True, "attach": {"scheme": "token"}}),
    "slack-node": Test("slack.mjs", Slack, "/slack/", also={"/slack-files/": "/"}),
    "slack-node-placeholder": Test("slack-placeholder.mjs", Slack, "/slack/", route={"placeholder": True}, also={"/slack-files/": "/"}),
    "stripe-python-placeholder": Test("stripe_customers.py", Stripe, "/stripe/", route={"placeholder": True}),
    "requests-python": Test("plain_requests.py", Echo, "/echo/"),
    "fetch-node": Test("plain_fetch.mjs", Echo, "/echo/"),
    "upload-locations": Test("upload_locations.py", Sessions, "/google/", route={"rewrite_location": True}),
    "httpx-h2": Test("plain_httpx.py", Echo, "/echo/"),
    "curl-proxy": Test("plain_curl.py", Echo, "/echo/", more=CALLERS),
    "grpc-python": Test("grpc_calls.py", grpc_server, "/interop.Photos/", provider=lambda folder: {"ca_cert": "${file:ca.pem}"}, at_least=6),
    "websocket-python": Test("websocket_talk.py", web_sockets, "/live/", route={"websocket": True}, at_least=1),
    "websocket-node": Test("websocket-talk.mjs", web_sockets, "/live/", route={"websocket": True}, at_least=1),
}


def main():
    parser = argparse.ArgumentParser(description="Real SDKs through Attaché.")
    parser.add_argument("--attache", type=pathlib.Path)
    parser.add_argument("--list", action="store_true", help="tell the names of the tests")
    parser.add_argument("--only", action="append", default=[], choices=TESTS, metavar="NAME")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(TESTS))
        return
    if asked.attache is None:
        parser.error("--attache is wanted")
    names = asked.only or list(TESTS)
    untold = [] if asked.only else [client for client in sorted((HERE / "clients").iterdir()) if not is_told(client)]
    for client in untold:
        print(f"FAILED docs: the lines between `docs:` marks of {client.name} do not stand in docs/clients.md")
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        passed = sum(pool.map(lambda name: run(name, asked.attache.resolve()), names))
    print(f"{passed} SDK tests passed, {len(names) - passed} failed ({time.monotonic() - began:.1f} s)")
    sys.exit(0 if passed == len(names) and not untold else 1)


def is_told(client):
    """Whether the page for app developers has the client's own lines, to the letter."""
    if not client.is_file():
        return True
    parts = re.findall(r"^ *(?:#|//) docs: begin\n(.*?)^ *(?:#|//) docs: end$", client.read_text(), re.MULTILINE | re.DOTALL)
    page = PAGE.read_text()
    return all(textwrap.dedent(part).strip() in page for part in parts)


def run(name, binary):
    test = TESTS[name]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attache-sdk-") as folder:
        faults = judge(test, binary, pathlib.Path(folder))
    took = f"({time.monotonic() - began:.1f} s)"
    print("\n".join([f"FAILED {name} {took}", *(f"    {line}" for fault in faults for line in fault.splitlines())]) if faults else f"ok {name} {took}", flush=True)
    return not faults


def judge(test, binary, folder):
    upstream = test.upstream() if isinstance(test.upstream, type) else test.upstream(folder)
    log = (folder / "attache.log").open("w+")
    attache = None
    try:
        proxy, public, admin, origin = free_ports(4)
        (folder / "routes.yaml").write_text(json.dumps(config(test, upstream, folder, proxy, public, admin, origin)))
        attache = subprocess.Popen([binary, "run", "-c", "routes.yaml"], cwd=folder, stdout=log, stderr=log)
        wait_ready(attache, admin)
        for person, token in TOKENS.items():
            connect(admin, person, token)
        relay = Relay(origin if test.origin is not None else proxy)
        faults = call(test, upstream, f"127.0.0.1:{relay.port}")
        relay.close()
        if any(relay.told(token.encode()) for token in TOKENS.values()):
            faults.append("a token stands in what Attaché told the client")
        for person in PEOPLE:
            user = person.split("@")[0]
            if (seen := sum(call[0] == user for call in upstream.calls)) < test.at_least:
                faults.append(f"the emulator saw {seen} calls of {user}, fewer than {test.at_least}")
        faults += upstream.faults
    except Exception as error:  # whatever it is, the other tests go on
        faults = [f"{type(error).__name__}: {error}"]
    finally:
        if attache is not None:
            attache.send_signal(signal.SIGTERM)
            try:
                attache.wait(10)
            except subprocess.TimeoutExpired:
                attache.kill()
                attache.wait()
        upstream.close()
    log.seek(0)
    said = log.read()
    if any(token in said for token in TOKENS.values()):
        faults.append("a token stands in Attaché's log")
    if faults:
        faults.append("Attaché: " + said[-1500:])
    return faults


def call(test, upstream, at):
    program = "node" if test.client.endswith(".mjs") else sys.executable
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env |= {"ATTACHE": f"http://{at}", "END_USERS": " ".join(PEOPLE), "GONE": GONE, "UPSTREAM": upstream.origin, "CALLER_KEY": KEY}
    client = subprocess.run([program, HERE / "clients" / test.client], capture_output=True, text=True, timeout=ENDS_WITHIN_S, env=env, check=False)
    said = client.stdout + client.stderr
    faults = []
    if client.returncode != 0 or "ok" not in client.stdout:
        faults.append(f"the client ended with {client.returncode}: {said[-2500:]}")
    if any(token in said for token in TOKENS.values()):
        faults.append("a token stands in what the client says")
    return faults


def config(test, upstream, folder, proxy, public, admin, origin):
    """Attaché's, as a user would write it, in JSON."""
    provider = {
        "authorize_url": "http://127.0.0.1:9/authorize",
        "token_url": "http://127.0.0.1:9/token",
        "client_id": "interop",
        "default_expires_in": "never",
        "token_hosts": [upstream.host],
        **test.provider(folder),
    }
    listen = {"proxy": f"127.0.0.1:{proxy}", "public": f"127.0.0.1:{public}", "admin": f"127.0.0.1:{admin}"}
    routes = []
    if test.origin is not None:
        listen["origins"] = [{"bind": f"127.0.0.1:{origin}", "provider": "api", "upstream": upstream.origin, **test.origin}]
    else:
        kept = test.prefix if test.prefix.startswith("/interop.") else "/"
        routes = [{"match": test.prefix + "{*rest}", "provider": "api", "upstream": f"{upstream.origin}{kept}{{rest}}", **test.route}]
        routes += [{**routes[0], "match": prefix + "{*rest}", "upstream": f"{upstream.origin}{path}{{rest}}"} for prefix, path in test.also.items()]
    return {"listen": listen, "store": {"sled": {"path": "./attache.db"}}, "admin": {"token": ADMIN}, "providers": {"api": provider}, "routes": routes, **test.more}


def connect(admin, person, token):
    line = json.dumps({"access_token": token, "token_type": "Bearer"}).encode()
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{admin}/v1/connections/api/{person}", line, headers, method="PUT"), timeout=10).close()


def wait_ready(attache, admin):
    give_up = time.monotonic() + 20
    while True:
        if attache.poll() is not None:
            raise RuntimeError(f"Attaché ended with {attache.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.03)


def free_ports(count):
    """Ports that nobody listens on, each given once, and below those that the system gives out meanwhile."""
    found = []
    with GIVING:
        while len(found) < count:
            port = next(PORTS)
            with socket.socket() as trial:
                try:
                    trial.bind(("127.0.0.1", port))
                    found.append(port)
                except OSError:
                    pass
    return found


def certificate(folder):
    """A key and a certificate for localhost, signed by an authority that nobody knows: `ca.pem`."""
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca = ["-subj", "/CN=Interop authority", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    openssl(folder, "req", "-x509", *ec, *ca, "-days", "1", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, "req", *ec, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "names", "-out", "server.pem")
    return (folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes()


def openssl(folder, *command):
    subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main()
