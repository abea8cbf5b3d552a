#!/usr/bin/env python3
"""Measures a store full of connections: the import, the start, the memory, and a minute in which many tokens end at once.

Most connections are made up and live for a year. `--expiring` of them are real grants of a sandbox, whose tokens end spread over one minute;
`refresh: {ahead: true}` renews them without a call. Printed: how long the import took, from start to ready, resident memory, how long the renewals
took, and how many tokens ended before theirs came.
"""

import argparse
import base64
import datetime
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "kill"))
import rig as rigs  # noqa: E402  (found beside this folder)
from databases import database, missing, store_lines  # noqa: E402

THREADS = 8
# Tokens of the sandbox live for an hour once they are renewed: none is renewed twice.
LIFE_S = 3600
# From the second import to the first token's end: the start, and the margin of a fifth of the life.
LEAD_S = 60
WINDOW_S = 60
# A margin of a fifth of (lead + window) at most.
REFRESH = "refresh: {ahead: true, margin: 20s}"


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def grants(rig, users):
    """A new grant at the sandbox for each user, by several threads: its import line without the end of the token."""
    found = [None] * len(users)

    def run(share):
        connection = http.client.HTTPConnection("127.0.0.1", rig.sandbox_port, timeout=60)
        for number in range(share, len(users), THREADS):
            asked = json.dumps({"user": users[number], "scopes": rigs.SCOPES, "client_id": rigs.CLIENT_ID})
            connection.request("POST", "/control/grants", asked, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 201, (answer.status, body)
            found[number] = {"provider": rigs.PROVIDER, "end_user": users[number], **json.loads(body)}
        connection.close()

    threads = [threading.Thread(target=run, args=(share,)) for share in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def load(rig, lines, what):
    """Imports lines from a file; returns the seconds and the import's peak of resident memory in MiB."""
    path = os.path.join(rig.folder, "lines")
    count = 0
    with open(path, "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")
            count += 1
    began = time.monotonic()
    with open(path, "rb") as source:
        child = subprocess.Popen([rig.attache, "connections", "import", "-c", "routes.yaml"], cwd=rig.folder, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, said[-2000:]
    took = time.monotonic() - began
    os.unlink(path)
    print(f"import of {count} {what}: {took:.1f} s, {count / took:.0f} a second, {usage.ru_maxrss / 1024:.0f} MiB at most", flush=True)


def made_up(count):
    end = rfc3339(time.time() + 365 * 24 * 3600)
    for number in range(count):
        token = f"{number:08}" * 12
        yield {
            "provider": rigs.PROVIDER, "end_user": f"user-{number:08}@example.com", "access_token": f"a{token}", "refresh_token": f"r{token}",
            "expires_at": end, "scopes": rigs.SCOPES,
        }


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mib(rig):
    now, most = rig.server.memory()
    return f"{now / 1024:.0f} MiB, {most / 1024:.0f} at most"


def watch(rig, count, first_end):
    """Looks on while the tokens are renewed."""
    before = rig.control()["counters"]
    cpu = cpu_s(rig.server.child.pid)
    first = last = None
    done = 0
    while done < count and time.time() < first_end + WINDOW_S + 600:
        counters = rig.control()["counters"]
        now_done = counters["refreshes"] - before["refreshes"]
        if now_done > 0 and first is None:
            first = time.time()
        if now_done > done:
            done, last = now_done, time.time()
        time.sleep(0.25)
    counters = rig.control()["counters"]
    late = counters["late_refreshes"] - before["late_refreshes"]
    posts = counters["token_posts"] - before["token_posts"]
    spent = cpu_s(rig.server.child.pid) - cpu
    if first is None:
        print("nothing was renewed")
        return
    print(f"{done} of {count} renewed by {posts} token calls in {last - first:.1f} s; the last {last - first_end - WINDOW_S:+.1f} s after the last token's end")
    print(f"renewed after the sandbox took the token for ended: {late}; CPU {spent:.1f} s, {1000 * spent / max(done, 1):.2f} ms each; memory {mib(rig)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", required=True, help="the binary")
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--expiring", type=int, default=100_000)
    parser.add_argument("--store", choices=["sled", "postgres", "redis"], default="sled", help="the shared ones are started here")
    arguments = parser.parse_args()
    if lacks := missing(arguments.store):
        sys.exit(f"{arguments.store} needs {', '.join(lacks)}")
    tempfile.tempdir = os.environ.get("TMPDIR")
    base = None if arguments.store == "sled" else database(arguments.store)
    store = {} if base is None else {"store": store_lines(arguments.store, base.url(), base64.b64encode(os.urandom(32)).decode()).rstrip("\n")}
    rig = rigs.Rig(arguments.attache, ["--token-life", f"{LIFE_S}s"], REFRESH, log="warn,attache::app=info", **store)
    try:
        print(f"{arguments.connections} connections on {arguments.store}, {os.cpu_count()} cores")
        if arguments.connections > arguments.expiring:
            load(rig, made_up(arguments.connections - arguments.expiring), "made-up connections")
        if arguments.expiring:
            users = [f"soon-{number:08}@example.com" for number in range(arguments.expiring)]
            lines = grants(rig, users)
            # What the import takes is not known yet: some 100 s at most for each 100,000.
            first_end = time.time() + LEAD_S + arguments.expiring / 1000
            for number, line in enumerate(lines):
                line["expires_at"] = rfc3339(first_end + WINDOW_S * number / len(lines))
            load(rig, lines, "connections whose tokens end soon")
            print(f"the first token ends in {first_end - time.time():.0f} s")
        rigs.READY_WITHIN_S = 600
        print(f"start to ready: {rig.start():.2f} s; memory {mib(rig)}", flush=True)
        if arguments.expiring:
            watch(rig, arguments.expiring, first_end)
        else:
            time.sleep(10)
            print(f"after 10 s: memory {mib(rig)}")
    finally:
        rig.close()
        if base is not None:
            base.close()


if __name__ == "__main__":
    main()
