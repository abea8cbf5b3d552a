"""Starts the proxies, runs the parts, writes the tables, tells the faults. `run.py` starts it once everything is there."""

import argparse
import collections
import contextlib
import os
import ssl
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import answers  # noqa: E402
import floods  # noqa: E402
import frames  # noqa: E402
import h2part  # noqa: E402
import h2tools  # noqa: E402
import judge  # noqa: E402
import paths  # noqa: E402
import peers  # noqa: E402
import peerspart  # noqa: E402
import proxies  # noqa: E402
import rig  # noqa: E402  (beside this folder; proxies found it)
import smuggling  # noqa: E402
import tunnels  # noqa: E402

HEAD = ["family", "case", "may", "attache", "attache, token", "nginx", "haproxy", ""]


class Report:
    """What was found, told at once, and counted in the end."""

    def __init__(self, out):
        self.out, self.faults, self.counts, self.known, self.used = out, [], {}, collections.Counter(), set()

    def part(self, name, cases, found):
        """`found` is (case or None, text) pairs; a case has a family and a name."""
        new = 0
        for case, text in found:
            if reason := judge.listed(judge.ALLOWED, case, text):
                self.used.add(reason)
            elif reason := judge.listed(judge.DEFECTS, case, text):
                self.known[reason] += 1
            else:
                new += 1
                where = f"{case.family}: {case.name}: " if case is not None else ""
                self.faults.append(f"{name}: {where}{text}")
                print(f"FAULT {self.faults[-1]}", flush=True)
        self.counts[name] = (cases, new)

    def skip(self, name, why):
        """Said loudly; where everything has to be there, a fault."""
        print(f"{name}: SKIPPED, {why}", flush=True)
        if os.environ.get("CI"):
            self.faults.append(f"{name}: skipped")

    def table(self, name, head, rows):
        path = os.path.join(self.out, f"{name}.txt")
        rows = [[show(cell) for cell in row] for row in [head, *rows]]
        widths = [min(max(len(row[column]) for row in rows), 60) for column in range(len(rows[0]))]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in rows)
        print(f"{name}: the table is in {path}")

    def end(self):
        for reason, times in self.known.items():
            print(f"known defect, {times} times: {reason}")
        for reason in sorted(set(judge.DEFECTS.values()) - set(self.known)) if set(PARTS) <= set(self.counts) else ():
            print(f"a known defect did not occur, strike it out: {reason}")
        for name, (cases, new) in self.counts.items():
            print(f"{name}: {cases} cases, {new} faults")
        print(f"{sum(cases for cases, _ in self.counts.values())} cases, {len(self.faults)} faults, {sum(self.known.values())} of known defects")
        return 1 if self.faults else 0


def show(cell):
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in str(cell))


@contextlib.contextmanager
def all_three(asked):
    """Attaché, and those of the others that are there."""
    running = []
    try:
        for kind in (lambda: proxies.Attache(asked.attache), proxies.Nginx, proxies.Haproxy):
            if getattr(kind, "name", None) not in asked.without:
                running.append(kind())
        yield running[0], running[1:]
    finally:
        for proxy in running:
            proxy.close()


def smuggling_part(asked, report):
    flagged = smuggling.flags_sloppy()
    twice = [fault for fault in flagged if "requests where" in fault]
    report.part("a sloppy proxy is flagged", len(flagged), [] if twice else [(None, f"the suite cannot fail: {flagged[:3]}")])
    with all_three(asked) as (ours, others):
        table, found = smuggling.suite(ours, others)
        names = [other.name for other in others]
        report.table("smuggling", [*HEAD[:5], *names, ""], table)
        for column, name in enumerate(names, 5):
            differ = sum(row[3].split(" / ")[-1] != row[column].split(" / ")[-1] for row in table)
            print(f"smuggling: {differ} cases at {name} end in another number of requests")
        report.part("smuggling", len(table), found)


def paths_part(asked, report):
    with all_three(asked) as (ours, others):
        rows, found = paths.suite(ours, others)
        names = [other.name for other in others]
        report.table("paths", ["path behind /any/ID/", "may", "attache", *names], rows)
        for column, name in enumerate(names, 3):
            refused_here = sum(row[1] == paths.MUST_REFUSE and "as " in row[column] for row in rows)
            rewritten = sum(row[column].startswith("as /") for row in rows)
            print(f"paths: {name} lets {refused_here} of those through that are refused here, and rewrites {rewritten}")
        report.part("paths", len(rows), found)


def answers_part(asked, report):
    with all_three(asked) as (ours, others):
        rows, found = answers.suite(ours, others)
        report.table("answers", ["answer", "may", "attache", *(other.name for other in others), ""], rows)
        report.part("answers", len(rows), found)


def tunnels_part(asked, report):
    try:
        ours = proxies.Attache(asked.attache, routes=tunnels.ROUTE)
    except rig.Refused as refused:
        report.skip("tunnels", f"this attache takes no `websocket` on a route: {str(refused).splitlines()[0][:160]}")
        return
    try:
        rows, found = tunnels.suite(ours)
        report.table("tunnels", ["upgrade", "answer", "upstream", "tunnels", "faults"], rows)
        report.part("tunnels", len(rows), found)
    finally:
        ours.close()


def h2_part(asked, report):
    with all_three(asked) as (ours, others):
        names = [other.name for other in others]
        if not frames.speaks_h2(ours.port):
            report.skip("h2", "this attache does not take HTTP/2 on its proxy listener")
            return
        table, found = h2part.suite(ours, others)
        report.table("h2", [*HEAD[:5], *names, ""], table)
        report.part("h2", len(table), found)
        rows, found = h2tools.suite(ours, "h2load" not in asked.without)
        report.table("h2-clients", ["client", "outcome"], rows)
        report.part("h2 clients", len(rows), found)
        rows, found = floods.suite(ours)
        report.table("h2-floods", ["flood", "connections", "rounds", "end", "upstream", "others", "memory"], rows)
        report.part("h2 floods", len(rows), found)
    h2_tls(asked, report)


def h2_tls(asked, report):
    """The same cases over TLS, where ALPN chooses."""
    if "openssl" in asked.without:
        report.skip("h2 over TLS", "openssl is not there")
        return
    with tempfile.TemporaryDirectory(prefix="attache-tls-") as folder:
        ca, leaf, key = peers.certificate(folder)
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        try:
            ours = proxies.Attache(asked.attache, listen="{{bind: 127.0.0.1:{port}, tls: {{cert: %s, key: %s}}}}" % (leaf, key))
        except rig.Refused as refused:
            report.skip("h2 over TLS", f"this attache takes no `tls` on its proxy listener: {str(refused).splitlines()[0][:120]}")
            return
        try:
            _, found = h2part.suite(ours, [], context=context)
            tool = h2tools.Tool("python h2 over TLS")
            report.part("h2 over TLS", len(h2part.all_cases()) + 1, found + [(tool, fault) for fault in h2tools.strict_calls(ours.port, context)])
        finally:
            ours.close()


def peers_part(asked, report):
    if "openssl" in asked.without:
        report.skip("peers", "openssl is not there")
        return
    rows, found = peerspart.suite(lambda routes, env: proxies.Attache(asked.attache, routes=routes, env=env, connect=False))
    report.table("peers", ["call", "peer", "outcome"], rows)
    report.part("peers", len(rows), found)


PARTS = {"smuggling": smuggling_part, "paths": paths_part, "answers": answers_part, "tunnels": tunnels_part, "h2": h2_part, "peers": peers_part}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attache", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--without", action="append", default=[], help="a program that is not there")
    asked = parser.parse_args()
    report = Report(asked.out)
    for name in asked.only:
        began = time.monotonic()
        PARTS[name](asked, report)
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(report.end())


if __name__ == "__main__":
    main()
