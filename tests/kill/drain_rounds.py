#!/usr/bin/env python3
"""Stops attache with SIGTERM under load, again and again: calls are answered or their connection is refused, and no refresh is lost.

Half of the threads open a connection a call, half keep theirs until an answer says `Connection: close`. The provider has no reuse leeway and answers
token calls late, so a refresh that the stop cuts off would cost its grant.
"""

import argparse
import collections
import http.client
import random
import sys
import threading
import time

sys.dont_write_bytecode = True
from rig import Rig  # noqa: E402  (no bytecode left in the tree)

THREADS = 12
USERS = [f"user-{number:02}@example.com" for number in range(20)]
QUICK, SLOW = ["/sandbox/me"], ["/sandbox/me", "/sandbox/bytes/5000000", "/sandbox/slow?ms=300"]
TOKEN_DELAY_MS = 100
STOP_WITHIN_S = 5
# The kernel may finish a handshake between the last accept and the listener's close. One such call a stop is forgiven.
BROKEN_MAX = 1


class Load:
    def __init__(self, port):
        self.port, self.lock, self.outcomes = port, threading.Lock(), collections.Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number % 2 == 0, SLOW if number < 4 else QUICK), daemon=True) for number in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def run(self, keep, paths):
        connection = None
        while not self.stopping.is_set():
            kept = connection is not None
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", random.choice(paths), headers={"X-End-User": random.choice(USERS)})
                answer = connection.getresponse()
                closes = answer.will_close
                body = answer.read()
                outcome = "answered" if answer.status == 200 else f"{answer.status} {body[:120]!r}"
                if closes or not keep:
                    connection.close()
                    connection = None
            except ConnectionRefusedError:
                outcome, connection = "refused", None
                self.stopping.wait(0.005)
            except (OSError, http.client.HTTPException) as error:
                outcome = f"{type(error).__name__} on a {'kept' if kept else 'fresh'} connection"
                connection.close()
                connection = None
            with self.lock:
                self.outcomes[outcome] += 1

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=35)


def drain_round(rig):
    """One start, load and stop: what came of the calls, what was wrong, how long the stop took."""
    rig.start()
    load = Load(rig.proxy_port)
    time.sleep(random.uniform(0.3, 0.9))
    began = time.monotonic()
    code = rig.server.terminate()
    took_s = time.monotonic() - began
    load.stop()
    faults = []
    if code != 0:
        faults.append(f"it ended with {code}")
    if took_s > STOP_WITHIN_S:
        faults.append(f"the stop took {took_s:.1f} s")
    bad = {outcome: count for outcome, count in load.outcomes.items() if outcome not in ("answered", "refused")}
    if sum(bad.values()) > BROKEN_MAX or any(outcome[0].isdigit() for outcome in bad):
        faults.append(f"calls failed: {bad}")
    faults.extend(f"it warned: {line['message']}" for line in rig.server.lines() if line["level"] in ("WARN", "ERROR") and "made a new" not in line["message"])
    faults.extend(f"{user} lost a refresh" for user, grant in rig.grants().items() if not grant["live"])
    return load.outcomes, faults, took_s


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", required=True, help="the binary")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    sandbox = ["--token-life", "1100ms", "--reuse-leeway", "0s", "--token-delay", f"{TOKEN_DELAY_MS}ms"]
    rig = Rig(arguments.attache, sandbox, "refresh: {margin: 500ms}", log="warn,attache::app=info")
    total, stops_s, failed = collections.Counter(), [], 0
    try:
        rig.connect(USERS)
        for number in range(1, arguments.rounds + 1):
            outcomes, faults, took_s = drain_round(rig)
            total.update(outcomes)
            stops_s.append(took_s)
            failed += bool(faults)
            for fault in faults:
                print(f"round {number}: {fault}")
    finally:
        rig.close()
    print(", ".join(f"{outcome}: {count}" for outcome, count in total.most_common()))
    print(f"a stop: median {sorted(stops_s)[len(stops_s) // 2]:.2f} s, most {max(stops_s):.2f} s")
    print(f"{arguments.rounds - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
