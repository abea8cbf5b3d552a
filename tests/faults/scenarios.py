"""The faults that the suite makes, one function a scenario: it yields the texts of what went wrong, and none when nothing did."""

import time

import fleet as fleets
import rig
from databases import database
from relay import Relay

# Every fault that a network can do to one peer: mode, amount.
FAULTS = [("latency", 400), ("reset", 0), ("hang", 0), ("trickle", 200), ("cut", 40), ("cut", 0), ("down", 0)]
# A tenth over a second: the provider says whole seconds.
TOKEN_LIFE = "1100ms"
KEYS = "refresh: {margin: 500ms}"


def users_of(count):
    return [f"user-{number:05}@example.com" for number in range(count)]


def relayed(target):
    (port,) = rig.free_ports(1)
    return Relay(target, port)


def ends(fleet, users, leeway):
    """What must hold whatever happened: no grant lost, nobody served as another, no refresh token spent twice past the leeway."""
    yield from fleets.verify(fleet, users)
    ended = fleet.ended_grants()
    if ended and leeway:
        yield f"{len(ended)} grants were lost though the provider has a leeway: {ended[:5]}"
    counters = fleet.control()["counters"]
    if counters["reuse_detections"]:
        yield f"{counters['reuse_detections']} refresh tokens were used again after the leeway"


def token_endpoint(asked, store):
    """Each fault for a while between attache and the token endpoint: calls may fail meanwhile, no grant does, and all is well soon after."""
    base, url = served(store)
    fleet = fleets.Fleet(asked.attache, store, url, 1, ["--token-life", TOKEN_LIFE, "--reuse-leeway", "60s"], KEYS)
    relay = relayed(fleet.sandbox_port)
    fleet.token_port = relay.port
    faults = []
    try:
        fleet.deploy()
        # The token endpoint is at the relay's port.
        fleet.provider_keys = KEYS
        users = users_of(asked.connections)
        fleet.connect(users)
        fleet.replicas[0].start()
        for mode, amount in FAULTS:
            relay.set("pass")
            load = fleets.Load(fleet, users, threads=4, per_s=200)
            time.sleep(0.5)
            relay.set(mode, amount)
            began = time.monotonic()
            time.sleep(asked.fault_s)
            relay.set("pass")
            span = [(began, time.monotonic() + asked.recover_s)]
            time.sleep(asked.recover_s)
            load.stop()
            texts, explained = load.unexcused(lambda began, ended, _, kind, span=span: kind in REFRESH_KINDS and fleets.within(span, began, ended, 1))
            faults += [f"token endpoint {mode} {amount}: {text}" for text in texts]
            faults += [f"token endpoint {mode} {amount}, afterwards: {text}" for text in ends(fleet, users, True)]
            print(f"token endpoint, {store}: {mode} {amount}: {load.calls} calls, {load.good} good, {explained} failed by the fault", flush=True)
    finally:
        relay.close()
        fleet.close(bool(faults))
        if base:
            base.close()
    return faults


# What a call may end in when its token cannot be refreshed, and when the store is out.
REFRESH_KINDS = ("refresh-failed", "refresh-timeout", "broken")
STORE_KINDS = ("store-unavailable", "refresh-failed", "refresh-timeout")


def served(store):
    if store == "sled":
        return None, None
    base = database(store)
    return base, base.url()


def store_faults(asked, store):
    """Each fault for a while between three attaches and their store."""
    base = database(store)
    relay = relayed(base.port)
    fleet = fleets.Fleet(asked.attache, store, base.url(relay.port), 3, ["--token-life", "3s", "--reuse-leeway", "60s"], "refresh: {margin: 1s}")
    faults = []
    try:
        fleet.deploy()
        users = users_of(asked.connections)
        fleet.connect(users)
        for replica in fleet.replicas:
            replica.start()
        for mode, amount in FAULTS:
            relay.set("pass")
            load = fleets.Load(fleet, users, threads=4, per_s=200)
            time.sleep(0.5)
            relay.set(mode, amount)
            began = time.monotonic()
            time.sleep(asked.fault_s)
            relay.set("pass")
            span = [(began, time.monotonic() + asked.recover_s)]
            time.sleep(asked.recover_s)
            load.stop()
            texts, explained = load.unexcused(lambda began, ended, _, kind, span=span: kind in STORE_KINDS and fleets.within(span, began, ended, 1))
            faults += [f"{store} {mode} {amount}: {text}" for text in texts]
            faults += [f"{store} {mode} {amount}, afterwards: {text}" for text in ends(fleet, users, True)]
            print(f"{store}: {mode} {amount}: {load.calls} calls, {load.good} good, {explained} failed by the fault", flush=True)
    finally:
        relay.close()
        fleet.close(bool(faults))
        base.close()
    return faults


def replicas(asked, store):
    """Three attaches under load, one killed every few seconds and started again, the database restarted once, the network to it cut once."""
    base = database(store)
    relay = relayed(base.port)
    life = asked.token_life_s
    sandbox = ["--token-life", f"{life}s", "--reuse-leeway", "10s"]
    fleet = fleets.Fleet(asked.attache, store, base.url(relay.port), 3, sandbox, f"refresh: {{margin: {life / 5:g}s}}")
    faults, outages = [], []
    try:
        fleet.deploy()
        users = users_of(asked.many)
        fleet.connect(users)
        for replica in fleet.replicas:
            replica.start()
        load = fleets.Load(fleet, users, threads=8, per_s=asked.per_s)
        began, kills, restarted, cut = time.monotonic(), 0, False, False
        while time.monotonic() - began < asked.seconds:
            time.sleep(asked.kill_every_s - 2)
            replica = fleet.replicas[kills % 3]
            replica.kill()
            kills += 1
            past = (time.monotonic() - began) / asked.seconds
            if past > 0.4 and not restarted:
                restarted = True
                start = time.monotonic()
                base.stop()
                time.sleep(1)
                base.start()
                outages.append((start, time.monotonic() + asked.recover_s))
            elif past > 0.7 and not cut:
                cut = True
                start = time.monotonic()
                relay.set("hang")
                time.sleep(2)
                relay.set("pass")
                outages.append((start, time.monotonic() + asked.recover_s))
            else:
                time.sleep(2)
            try:
                replica.start()
            except rig.Refused:
                # The store may be out just now.
                time.sleep(3)
                replica.start()
        time.sleep(2)
        load.stop()

        def excused(call_began, ended, replica, kind):
            if kind == "broken" and fleets.within(replica.outages, call_began, ended, 0.5):
                return True
            return kind in STORE_KINDS and fleets.within(outages, call_began, ended, 1)

        texts, explained = load.unexcused(excused)
        faults += texts
        faults += ends(fleet, users, True)
        counters, told = fleet.control()["counters"], fleet.told_cut_off()
        if counters["late_refreshes"] > told:
            faults.append(f"{counters['late_refreshes']} refreshes by a token that was rotated already, and only {told} cut-off calls were told")
        print(
            f"{store}: {len(users)} connections, {asked.seconds} s, {kills} kills, {load.calls} calls, {load.good} good, {explained} failed by an outage, "
            f"{load.api_401} answered 401 by the API, {counters['refreshes']} refreshes by {counters['refresh_posts']} POSTs, "
            f"{counters['late_refreshes']} of them within the leeway, {told} cut-off calls told, {len(fleet.ended_grants())} grants lost",
            flush=True,
        )
    finally:
        relay.close()
        fleet.close(bool(faults))
        base.close()
    return faults
