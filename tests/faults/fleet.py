"""Several attaches on one store, the sandbox that they call, and the load on them."""

import http.client
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kill"))
import rig  # noqa: E402  (found beside this folder)
from databases import store_lines  # noqa: E402

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
    authorize_url: http://127.0.0.1:{token}/authorize
    token_url: http://127.0.0.1:{token}/token
    revoke_url: http://127.0.0.1:{token}/revoke
    token_hosts: ["127.0.0.1:{api}"]
{provider_keys}
routes:
  - match: /sandbox/{{*rest}}
    provider: sandbox
    upstream: http://127.0.0.1:{api}/v1/{{rest}}
"""
CUT_OFF = "a token call was cut off before its answer was on disk"
IMPORT_LINES_MAX = 5_000


class Replica:
    """One attache in a folder of its own."""

    def __init__(self, fleet, number):
        self.fleet, self.number = fleet, number
        self.folder = os.path.join(fleet.folder, f"replica-{number}")
        os.mkdir(self.folder)
        self.proxy, self.public, self.admin = rig.free_ports(3)
        self.process = rig.Process([fleet.attache, "--log-format", "json", "run", "-c", "routes.yaml"], self.folder, "attache.log", {"RUST_LOG": fleet.log})
        self.write()
        # From when to when it was down, the last one open.
        self.outages = []

    def write(self):
        fleet = self.fleet
        keys = "".join(f"    {line}\n" for line in fleet.provider_keys.splitlines())
        text = ROUTES.format(
            proxy=self.proxy, public=self.public, admin=self.admin, store=fleet.store_lines.rstrip("\n"), token=fleet.token_port, api=fleet.api_port,
            client_id=rig.CLIENT_ID, client_secret=rig.CLIENT_SECRET, provider_keys=keys,
        )
        with open(os.path.join(self.folder, "routes.yaml"), "w", encoding="utf-8") as routes:
            routes.write(text)

    def start(self):
        self.process.start("attache is ready")
        if self.outages:
            self.outages[-1][1] = time.monotonic()

    def kill(self):
        self.outages.append([time.monotonic(), float("inf")])
        self.process.kill()

    def is_up(self):
        return self.process.child is not None and self.process.child.poll() is None


class Fleet:
    """`token_port` and `api_port`, where relays stand between; the sandbox's own by default."""

    def __init__(self, attache, store, url, replicas=1, sandbox_args=(), provider_keys="", log="warn,attache::app=info,attache::token=info"):
        self.attache = os.path.abspath(attache)
        self.folder = tempfile.mkdtemp(prefix="attache-fleet-")
        self.log, self.provider_keys = log, provider_keys
        (self.sandbox_port,) = rig.free_ports(1)
        self.token_port = self.api_port = self.sandbox_port
        key = subprocess.run([self.attache, "keygen"], check=True, capture_output=True, text=True).stdout.split()[-1]
        if store == "sled":
            self.store_lines = f"  sled: {{path: {self.folder}/attache.db}}\n  encryption_keys: ['{key}']\n"
        else:
            self.store_lines = store_lines(store, url, key)
        sandbox = [self.attache, "sandbox", "--listen", f"127.0.0.1:{self.sandbox_port}", *sandbox_args]
        self.sandbox = rig.Process(sandbox, self.folder, "sandbox.log", {"RUST_LOG": "warn,attache::cli=info"})
        self.count, self.replicas = replicas, []
        self.sandbox.start("the sandbox is ready")

    def deploy(self):
        """Writes the replicas' configs: what stands between is known by now."""
        self.replicas = [Replica(self, number) for number in range(self.count)]

    def connect(self, users):
        """No attache may be running on a sled store."""
        lines = []
        for user in users:
            asked = json.dumps({"user": user, "scopes": rig.SCOPES, "client_id": rig.CLIENT_ID})
            status, _, body = rig.call(self.sandbox_port, "POST", "/control/grants", {"Content-Type": "application/json"}, asked)
            assert status == 201, (status, body)
            lines.append(json.dumps({"provider": rig.PROVIDER, "end_user": user, **json.loads(body)}))
        for start in range(0, len(lines), IMPORT_LINES_MAX):
            self.command("connections", "import", text="\n".join(lines[start : start + IMPORT_LINES_MAX]))

    def command(self, *arguments, text=None):
        command = [self.attache, *arguments, "-c", "routes.yaml"]
        done = subprocess.run(command, cwd=self.replicas[0].folder, input=text, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise rig.Refused(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def control(self, **switches):
        method, headers, body = ("POST", {"Content-Type": "application/json"}, json.dumps(switches)) if switches else ("GET", None, None)
        status, _, answer = rig.call(self.sandbox_port, method, "/control", headers, body)
        assert status == 200, (status, answer)
        return json.loads(answer)

    def ended_grants(self):
        status, _, body = rig.call(self.sandbox_port, "GET", "/control/grants")
        assert status == 200, (status, body)
        return sorted(grant["user"] for grant in json.loads(body)["items"] if not grant["live"])

    def told_cut_off(self):
        """How many cut-off token calls all starts of all replicas told of."""
        told = 0
        for replica in self.replicas:
            with open(replica.process.log_path, encoding="utf-8", errors="replace") as log:
                told += sum(CUT_OFF in line for line in log)
        return told

    def close(self, keep=False):
        for replica in self.replicas:
            replica.process.end()
        self.sandbox.end()
        if keep:
            print(f"configs and logs are kept in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def type_of(headers, body):
    """The name of attache's own error, or None where the answer is the API's."""
    if headers.get_content_type() != "application/problem+json":
        return None
    return json.loads(body).get("type", "").removeprefix("urn:attache:")


class Load:
    """Calls for all users in a steady round from several threads, each at any replica that is up. What no user should see is kept in `odd` as
    (when, replica, user, what, kind); `excused(when, replica, kind)` says which of it an outage explains."""

    def __init__(self, fleet, users, threads=8, per_s=None, seed=0):
        self.fleet, self.users, self.per_s = fleet, users, per_s
        self.calls, self.good, self.api_401, self.odd = 0, 0, 0, []
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.todo = queue.SimpleQueue()
        self.began = time.monotonic()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(f"{seed}/{number}"), number, threads), daemon=True) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, rng, number, threads):
        mine = self.users[number::threads]
        rng.shuffle(mine)
        connections = {}
        made = 0
        while not self.stopping.is_set():
            for user in mine:
                if self.stopping.is_set():
                    break
                if self.per_s:
                    ahead = made * threads / self.per_s - (time.monotonic() - self.began)
                    if ahead > 0 and self.stopping.wait(ahead):
                        break
                made += 1
                up = [replica for replica in self.fleet.replicas if replica.is_up()]
                if not up:
                    self.stopping.wait(0.05)
                    continue
                replica = rng.choice(up)
                self.one(connections, replica, user)
        for connection, _ in connections.values():
            connection.close()

    def one(self, connections, replica, user):
        connection, lives = connections.get(replica.number, (None, None))
        if lives != len(replica.outages):
            # One to a process that is gone is no connection.
            connection = http.client.HTTPConnection("127.0.0.1", replica.proxy, timeout=40)
            connections[replica.number] = (connection, len(replica.outages))
        began = time.monotonic()
        try:
            connection.request("GET", "/sandbox/me", headers={"X-End-User": user})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.note(began, replica, user, f"the call broke off: {error!r}", "broken")
            self.stopping.wait(0.02)
            return
        status, problem = answer.status, type_of(answer.headers, body)
        with self.lock:
            self.calls += 1
        if status == 200:
            served = json.loads(body).get("user")
            if served != user:
                self.note(began, replica, user, f"was served as {served}", "mixed-up")
            else:
                with self.lock:
                    self.good += 1
        elif status == 401 and problem is None:
            # The token ended on its way to the API: short-lived ones do that, and it is no fault of attache's.
            with self.lock:
                self.api_401 += 1
        else:
            self.note(began, replica, user, f"got {status} {body[:200]!r}", problem or f"api-{status}")

    def note(self, began, replica, user, what, kind):
        with self.lock:
            self.odd.append((began, time.monotonic(), replica, user, what, kind))

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=60)

    def unexcused(self, excused):
        """The texts of what nothing explains, at most a few of each kind, and how many were explained."""
        texts, kinds, explained = [], {}, 0
        for began, ended, replica, user, what, kind in self.odd:
            if excused(began, ended, replica, kind):
                explained += 1
                continue
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] <= 5:
                texts.append(f"{ended - self.began:.1f} s: replica {replica.number}: {user} {what}")
        texts += [f"{count} calls ended in {kind}" for kind, count in kinds.items()]
        return texts, explained


def within(spans, began, ended, slack_s):
    """Whether a call from `began` to `ended` met one of these outages."""
    return any(ended >= start - slack_s and began <= end + slack_s for start, end in spans)


def verify(fleet, users, within_s=60):
    """Every user is served as who they are by every replica; the texts of what is not so."""
    waiting = [(replica, user) for replica in fleet.replicas for user in users]
    give_up = time.monotonic() + within_s
    last = {}
    while waiting and time.monotonic() < give_up:
        results = in_parallel(lambda pair: one_call(pair[0].proxy, pair[1]), waiting)
        left = []
        for pair, (status, headers, body) in results.items():
            if status == 200 and json.loads(body).get("user") == pair[1]:
                continue
            last[pair] = f"{status} {body[:200]!r}"
            left.append(pair)
            if status == 401 and type_of(headers, body) in ("reconnect-required", "not-connected"):
                give_up = min(give_up, time.monotonic() + 5)
        waiting = left
        if waiting:
            time.sleep(0.2)
    return [f"{user} at replica {replica.number} is not served: {last[(replica, user)]}" for replica, user in waiting]


def one_call(port, user):
    try:
        return rig.call(port, "GET", "/sandbox/me", {"X-End-User": user})
    except (OSError, http.client.HTTPException) as error:
        return 0, None, repr(error).encode()


def in_parallel(work, items, threads=8):
    results = {}
    shares = [items[number::threads] for number in range(threads)]

    def run(share):
        for item in share:
            results[item] = work(item)

    running = [threading.Thread(target=run, args=(share,)) for share in shares if share]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return results
