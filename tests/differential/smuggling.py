"""Sends every case to every proxy, side by side, and judges ours (THREATS 11)."""

import concurrent.futures
import time

import cases_chunks
import cases_framing
import cases_heads
import cases_sequences
from case import ALL, DENY, EITHER, REFUSE
from client import exchange
from judge import Result, differences, faults, stray
from sloppy import Sloppy
from recorder import Recorder

SIDE_BY_SIDE = 16
# After the last answer, what is still on its way to the recorder.
SETTLE_S = 0.5


def all_cases():
    return [*cases_framing.cases(), *cases_chunks.cases(), *cases_heads.cases(), *cases_sequences.cases()]


def run(port, recorder, cases, is_ours, prefix=b"/any/", letter="a"):
    """Each case once, by its own connection; what came of it, in the order of the cases."""

    def one(number, case):
        case_id = f"c{number:04}{letter}"
        pieces = case.sent(case_id, prefix)
        # Ours is waited for where it must answer or close; the others where they seem to do something.
        due = len(case.through) if case.may in (ALL, EITHER) else 1 if case.may == DENY else None
        outcome = exchange(port, pieces, due=due, until_closed=is_ours and case.may == REFUSE, patience_s=(3 if case.may == EITHER else None) if is_ours else 0.5)
        return Result(case, case_id, prefix, outcome)

    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        results = list(pool.map(one, range(len(cases)), cases))
    time.sleep(SETTLE_S)
    violations = {}
    for case_id, fault, data in recorder.violations():
        violations.setdefault(case_id, []).append((fault, data))
    for result in results:
        result.gather(recorder, violations)
    return results


def suite(ours, others, cases=None):
    """Lines of the table, and every fault as (case, text)."""
    cases = all_cases() if cases is None else cases
    jobs = [(ours, b"/any/", "a"), (ours, b"/tok/", "t")] + [(other, b"/any/", "a") for other in others]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        done = list(pool.map(lambda job: run(job[0].port, job[0].recorder, cases, job[0] is ours, job[1], job[2]), jobs))
    plain, tokened, *theirs = done
    found, table = [], []
    for number, case in enumerate(cases):
        row = [plain[number], tokened[number], *(results[number] for results in theirs)]
        said = [(case, fault) for fault in faults(row[0]) + differences(row[0], row[2:])]
        said += [(case, f"with a token: {fault}") for fault in faults(row[1])]
        found += said
        table.append([case.family, case.name, case.may, *(str(result) for result in row), "FAULT" if said else ""])
    return table, found + [(None, fault) for fault in stray(ours.recorder)]


def flags_sloppy():
    """The suite run against a proxy that passes bytes on; what it flags, which must not be nothing."""
    recorder = Recorder()
    sloppy = Sloppy(recorder.port)
    try:
        results = run(sloppy.port, recorder, cases_framing.cases(), is_ours=False)
        return [fault for result in results for fault in faults(result)]
    finally:
        sloppy.close()
        recorder.close()
