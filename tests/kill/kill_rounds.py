#!/usr/bin/env python3
"""Kills attache with SIGKILL while it refreshes, again and again, and checks that no grant is lost (THREATS row 32).

A provider that rotates refresh tokens spends the old one as it gives the new one; between that answer and the disk lies the one window in which a
crash can cost a grant. With a reuse leeway (--leeway 10) nothing may be lost in any round. Without one (--leeway 0) a connection may be lost only if
attache told of its cut-off token call at the restart.

A round: calls for random users from several threads, so that refreshes are always under way; SIGKILL at a random moment; restart (now and then
killed once more on its way up); then every connection must be refreshed once more at the provider and answer as its own user.
"""

import argparse
import base64
import http.client
import json
import os
import random
import sys
import threading
import time

sys.dont_write_bytecode = True
from databases import database, missing, store_lines  # noqa: E402  (no bytecode left in the tree)
from rig import Refused, Rig, call  # noqa: E402

THREADS = 6
VERIFY_WITHIN_S = 30
# So that tokens of one second are renewed twice a second: more refreshes to cut off.
PROVIDER_KEYS = "refresh: {margin: 500ms}"
CUT_OFF = "a token call was cut off before its answer was on disk"
# How long the provider takes to answer a token call after it has rotated: mostly long enough for kills to fall inside.
TOKEN_DELAYS_MS = (0, 3, 15, 60, 200, 400)
# A tenth over a second: the provider says whole seconds, and a token must not end on its way to the API.
TOKEN_LIFE = "1100ms"
# One round in so many kills attache once more while it starts.
KILL_IN_START_EVERY = 6


def problem(headers, body):
    """The name of attache's own error, if the answer is one."""
    if headers.get_content_type() != "application/problem+json":
        return None
    return json.loads(body).get("type", "").removeprefix("urn:attache:")


class Hammer:
    """Calls for random users from several threads, until told to stop. Any answer that a user should not see is kept."""

    def __init__(self, port, users, spared, seed):
        self.port, self.users, self.spared = port, users, spared
        self.lock = threading.Lock()
        self.calls, self.upstream_401, self.odd = 0, 0, []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(f"{seed}/{number}"),), daemon=True) for number in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def run(self, rng):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stopping.is_set():
            user = rng.choice(self.users)
            try:
                connection.request("GET", "/sandbox/me", headers={"X-End-User": user})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not self.stopping.is_set():
                    self.note(user, f"the call broke off: {error!r}")
                    time.sleep(0.01)
                continue
            self.judge(user, answer.status, answer.headers, body)
        connection.close()

    def judge(self, user, status, headers, body):
        with self.lock:
            self.calls += 1
        if status == 200:
            served = json.loads(body).get("user")
            if served != user:
                self.note(user, f"was served as {served}")
        elif status == 401 and problem(headers, body) is None:
            # The token ended on its way to the API: tokens of a second do that, and it is no fault of attache's.
            with self.lock:
                self.upstream_401 += 1
        elif user not in self.spared:
            self.note(user, f"got {status} {body[:300]!r}")

    def note(self, user, what):
        with self.lock:
            self.odd.append(f"{user} {what}")

    def stop(self):
        for thread in self.threads:
            thread.join(timeout=35)


class Rounds:
    def __init__(self, rig, arguments):
        self.rig, self.leeway, self.seed = rig, arguments.leeway, arguments.seed
        self.rng = random.Random(arguments.seed)
        self.users = [f"user-{number:03}@example.com" for number in range(arguments.connections)]
        rig.connect(self.users)
        self.ids = rig.connection_ids()
        assert sorted(self.ids.values()) == self.users, "not all connections were imported"
        self.kills = self.kills_in_start = self.kills_inside = self.told = self.lost = self.calls = self.upstream_401 = self.passed = self.failed = 0
        self.started_s, self.verified_s, self.round_s = [], [], []
        self.dead, self.told_last = set(), set()
        self.reused_before = set()

    def run(self, rounds):
        rig = self.rig
        self.started_s.append(rig.start())
        for number in range(1, rounds + 1):
            began = time.monotonic()
            faults = self.round(number)
            self.round_s.append(time.monotonic() - began)
            for fault in faults:
                print(f"round {number}: {fault}")
            if faults:
                self.failed += 1
            else:
                self.passed += 1
            if faults and self.rig.server.child.poll() is not None:
                print("attache is not running any more: the rounds end here")
                self.failed += rounds - number
                return

    def round(self, number):
        faults, killed = self.strike(number)
        return self.recover(faults, killed)

    def strike(self, number):
        """Calls from several threads, and SIGKILL at a random moment: what was odd until then, and when it was."""
        rig, rng = self.rig, self.rng
        delay_ms = rng.choice(TOKEN_DELAYS_MS)
        rig.control(token_delay_ms=delay_ms)
        hammer = Hammer(rig.proxy_port, self.users, frozenset(self.dead), f"{self.seed}/{number}")
        # After a verified round all tokens are due for a refresh at about the same time: half a second after.
        time.sleep(rng.uniform(0.35, 0.9) if rng.random() < 0.8 else rng.uniform(0.02, 0.35))
        ended_early = rig.server.child.poll()
        hammer.stopping.set()
        rig.server.kill()
        killed = time.monotonic()
        hammer.stop()
        self.calls += hammer.calls
        self.upstream_401 += hammer.upstream_401
        faults = [f"before the kill, {odd}" for odd in hammer.odd]
        if ended_early is not None:
            faults.append(f"attache ended by itself with {ended_early}: {rig.server.log()[-1500:]}")
        return faults, killed

    def recover(self, faults, killed):
        """Starts it again, and sees that every connection lives, or was told of."""
        rig, rng = self.rig, self.rng
        self.kills += 1
        if self.dead:
            # Nothing to save here any more: whom an earlier kill has cost the grant connects anew.
            rig.connect(sorted(self.dead))
            self.dead.clear()
        before = rig.grants()
        self.reused_before = {grant["id"] for grant in before.values() if grant["reuse_detected"]}
        rig.control(token_delay_ms=0)
        try:
            if rng.randrange(KILL_IN_START_EVERY) == 0:
                rig.server.launch()
                time.sleep(rng.uniform(0.0, 0.05))
                rig.server.kill()
                self.kills_in_start += 1
            self.started_s.append(rig.start())
        except Refused as refused:
            return [*faults, f"no restart: {refused}"]
        told = self.told_at_start(faults)
        self.verify(before, told, faults, killed)
        # On a shared store a call may be another replica's until its lease ends: such a one is told then.
        told |= self.told_at_start(faults)
        if told:
            self.kills_inside += 1
            self.told += len(told)
        self.told_last = told
        return faults

    def told_at_start(self, faults):
        """The users whose cut-off token call the log of this start tells of."""
        users = set()
        for line in self.rig.server.lines():
            if line.get("message", "").startswith(CUT_OFF):
                user = self.ids.get(line.get("connection.id"))
                if user is None:
                    faults.append(f"a cut-off call of an unknown connection was told: {line}")
                else:
                    users.add(user)
        return users

    def verify(self, before, told, faults, killed):
        """Every connection is refreshed at the provider since the restart, and serves its own user."""
        began = time.monotonic()
        waiting = {user: before[user]["refreshes"] for user in self.users}
        last = {}
        while waiting:
            results = in_parallel(lambda user: one_call(self.rig.proxy_port, user), list(waiting))
            now = self.rig.grants()
            for user, (status, headers, body) in results.items():
                last[user] = f"{status} {body[:300]!r}"
                if status == 200 and json.loads(body).get("user") != user:
                    faults.append(f"{user} was served as {json.loads(body).get('user')}")
                    waiting.pop(user)
                elif status == 200 and now[user]["refreshes"] > waiting[user]:
                    waiting.pop(user)
                elif status == 401 and problem(headers, body) == "reconnect-required":
                    self.count_lost(user, now[user], told, faults, time.monotonic() - killed)
                    waiting.pop(user)
                elif status not in (200, 401, 502, 503):
                    faults.append(f"{user} got {last[user]}")
                    waiting.pop(user)
            if time.monotonic() - began > VERIFY_WITHIN_S:
                faults.extend(f"{user} is not refreshed {VERIFY_WITHIN_S} s after the restart: {last[user]}" for user in waiting)
                break
            time.sleep(0.03)
        self.verified_s.append(time.monotonic() - began)
        self.cross_check(faults)

    def count_lost(self, user, grant, told, faults, after_s):
        self.lost += 1
        self.dead.add(user)
        told |= self.told_at_start(faults)
        facts = f"refreshed {grant['refreshes']} times, reuse_detected {grant['reuse_detected']}, {after_s:.1f} s after the kill"
        if self.leeway > 0:
            faults.append(f"{user} is lost though the provider has a leeway ({facts}; {'told' if user in told else 'not told'} at the start)")
        elif user not in told:
            faults.append(f"{user} is lost and the start told nothing of a cut-off call ({facts})")

    def cross_check(self, faults):
        """What the provider saw: a reuse ends a grant, so exactly the lost ones have one."""
        reused = {user for user, grant in self.rig.grants().items() if grant["reuse_detected"] and grant["id"] not in self.reused_before}
        for user in sorted(reused - self.dead):
            faults.append(f"{user} had a refresh token used twice, and nobody was told")
        for user in sorted(self.dead - reused):
            faults.append(f"{user} was given up although the provider saw no reuse")


def one_call(port, user):
    try:
        return call(port, "GET", "/sandbox/me", {"X-End-User": user})
    except (OSError, http.client.HTTPException) as error:
        return 0, None, repr(error).encode()


def in_parallel(work, items):
    results = {}
    shares = [items[number::THREADS] for number in range(THREADS)]

    def run(share):
        for item in share:
            results[item] = work(item)

    threads = [threading.Thread(target=run, args=(share,)) for share in shares if share]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def spread(seconds):
    ordered = sorted(seconds)
    return f"median {ordered[len(ordered) // 2]:.2f} s, most {ordered[-1]:.2f} s" if ordered else "none"


def parse(description, rounds):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", required=True, help="the binary")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--leeway", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--store", choices=["sled", "postgres", "redis"], default="sled", help="the shared ones are started here")
    parser.add_argument("--seed", type=int, default=None, help="for the moments and users; threads still race")
    parser.add_argument("--keep", action="store_true", help="keep the folder with config, store and logs")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1 << 32)
    return arguments


def run(arguments, kind, **of_rig):
    """All rounds of a kind on a rig of their own; ends the process with 1 where one failed."""
    print(f"seed {arguments.seed}")
    if lacks := missing(arguments.store):
        print(f"SKIPPED: {arguments.store} needs {', '.join(lacks)}")
        sys.exit(1 if os.environ.get("CI") else 0)
    base = None if arguments.store == "sled" else database(arguments.store)
    store = {} if base is None else {"store": store_lines(arguments.store, base.url(), base64.b64encode(os.urandom(32)).decode()).rstrip("\n")}
    rig = Rig(
        arguments.attache,
        ["--token-life", TOKEN_LIFE, "--reuse-leeway", f"{arguments.leeway}s"],
        PROVIDER_KEYS,
        log="warn,attache::app=info,attache::token=info",
        **store,
        **of_rig,
    )
    rounds = None
    try:
        rounds = kind(rig, arguments)
        rounds.run(arguments.rounds)
        counters = rig.control()["counters"]
    finally:
        keep = arguments.keep or rounds is None or rounds.failed > 0
        rig.close(keep)
        if base is not None:
            base.close()
        if keep:
            print(f"config, store and logs are kept in {rig.folder}")
    print(
        f"kills {rounds.kills} and {rounds.kills_in_start} more while starting, inside the window {rounds.kills_inside}, told at start {rounds.told}, lost {rounds.lost}, "
        f"refreshes {counters['refreshes']}"
    )
    print(f"calls before kills {rounds.calls}, of them answered 401 by the API {rounds.upstream_401}; reuse detections {counters['reuse_detections']}")
    print(f"a round: {spread(rounds.round_s)}; start to ready: {spread(rounds.started_s)}; until all were refreshed: {spread(rounds.verified_s)}")
    print(f"{rounds.passed} passed, {rounds.failed} failed")
    sys.exit(1 if rounds.failed else 0)


if __name__ == "__main__":
    run(parse(__doc__, 50), Rounds)
