"""Sends every HTTP/2 case to every proxy that speaks it, and judges ours (THREATS 11 and 16)."""

import concurrent.futures
import time

import cases_h2
from case import ALL, with_id
from frames import CHUNK, Peer, in_continuations
from hyperframe.frame import DataFrame
from judge import Result, differences, faults, stray

SIDE_BY_SIDE = 12
SETTLE_S = 0.5


def send(port, case, case_id, prefix, patience_s, context=None):
    """One case on a connection of its own."""
    peer = Peer(port, context=context)
    try:
        peer.take(10)  # its SETTINGS first, so that its limits are known
        fields = [(with_id(name, case_id, prefix), with_id(value, case_id, prefix)) for name, value in case.fields]
        if case.raw is not None:
            peer.send(*(with_id(part, case_id, prefix) if isinstance(part, bytes) else part for part in case.raw(peer, fields)))
        else:
            data = [with_id(part, case_id, prefix) for part in case.parts or []]
            block = peer.encoder.encode(fields, huffman=False)
            peer.send(*block_frames(block, end=not data and not case.trailers))
            for number, part in enumerate(data):
                peer.send(DataFrame(1, part, flags=["END_STREAM"] if number + 1 == len(data) and not case.trailers else []))
            if case.trailers:
                trailers = [(with_id(name, case_id, prefix), with_id(value, case_id, prefix)) for name, value in case.trailers]
                peer.send(peer.headers(1, trailers, end=True))
        return peer.wait([1], patience_s)
    finally:
        peer.close()


def block_frames(block, end):
    return in_continuations(1, block, max(1, -(-len(block) // CHUNK)), end)


def run(port, recorder, cases, is_ours, prefix, letter, context=None):
    def one(number, case):
        case_id = f"c{number:04}{letter}"
        try:
            outcome = send(port, case, case_id, prefix, 10 if is_ours and case.may == ALL else 2 if is_ours else 0.7, context)
        except OSError as error:
            raise AssertionError(f"{case.name}: {error}") from error
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


def all_cases():
    return list(cases_h2.cases())


def suite(ours, others, letters=("h", "i"), context=None):
    """Rows of the table, and the faults as (case, text)."""
    cases = all_cases()
    jobs = [(ours.port, ours.recorder, True, b"/any/", letters[0], context), (ours.port, ours.recorder, True, b"/tok/", letters[1], context)]
    jobs += [(other.h2_port, other.recorder, False, b"/any/", letters[0], None) for other in others]
    with concurrent.futures.ThreadPoolExecutor(max(1, len(jobs))) as pool:
        done = list(pool.map(lambda job: run(job[0], job[1], cases, *job[2:]), jobs))
    found, table = [], []
    for number, case in enumerate(cases):
        row = [results[number] for results in done]
        said = [(case, fault) for fault in faults(row[0]) + differences(row[0], row[2:])]
        said += [(case, f"with a token: {fault}") for fault in faults(row[1])]
        found += said
        table.append([case.family, case.name, case.may, *(str(result) for result in row), "FAULT" if said else ""])
    return table, found + [(None, fault) for fault in stray(ours.recorder)]
