#!/usr/bin/env python3
"""Faults on purpose: broken networks, stores and processes under load. No grant may be lost, and no user served as another.

    python3 tests/faults/run.py --attache target/release/attache [--store sled|postgres|redis]... [--only token|store|replicas]... [--long]

Minutes by default; `--long` takes the full size: 2,000 connections, tokens of 5 s, 5 minutes of load with a kill every 10 s. What a store needs and
is not there is said and skipped; with CI set, that is a failure.
"""

import argparse
import os
import sys
import time

sys.dont_write_bytecode = True

import scenarios  # noqa: E402
from databases import missing  # noqa: E402  (beside this folder; scenarios found it)

STORES = ("sled", "postgres", "redis")
SCENARIOS = {"token": (scenarios.token_endpoint, STORES), "store": (scenarios.store_faults, STORES[1:]), "replicas": (scenarios.replicas, STORES[1:])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", required=True, help="the binary")
    parser.add_argument("--store", action="append", default=[], choices=STORES)
    parser.add_argument("--only", action="append", default=[], choices=SCENARIOS)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--connections", type=int, default=30, help="where each fault is made for a while")
    parser.add_argument("--fault-s", type=float, default=3, help="how long each fault lasts")
    parser.add_argument("--recover-s", type=float, default=6, help="how soon all must be well after one")
    parser.add_argument("--many", type=int, default=None, help="connections of the replicas' load (300, or 2,000)")
    parser.add_argument("--seconds", type=float, default=None, help="of that load (40, or 300)")
    parser.add_argument("--kill-every-s", type=float, default=None, help="(6, or 10)")
    parser.add_argument("--token-life-s", type=float, default=5)
    parser.add_argument("--per-s", type=float, default=None, help="calls a second (200, or 700)")
    asked = parser.parse_args()
    for name, small, large in (("many", 300, 2_000), ("seconds", 40, 300), ("kill_every_s", 6, 10), ("per_s", 200, 700)):
        if getattr(asked, name) is None:
            setattr(asked, name, large if asked.long else small)
    failed = False
    for store in asked.store or STORES:
        if lacks := missing(store):
            print(f"SKIPPED: {store} needs {', '.join(lacks)}", flush=True)
            failed |= bool(os.environ.get("CI"))
            continue
        for name in asked.only or SCENARIOS:
            scenario, stores = SCENARIOS[name]
            if store not in stores:
                continue
            began = time.monotonic()
            faults = scenario(asked, store)
            for fault in faults:
                print(f"FAULT {store}: {name}: {fault}")
            print(f"{store}: {name}: {'failed' if faults else 'passed'} in {time.monotonic() - began:.0f} s", flush=True)
            failed |= bool(faults)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
