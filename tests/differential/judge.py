"""What a proxy let through, held against what the client meant."""

import fnmatch

from case import ALL, DENY, EITHER, REFUSE
from proxies import TOKEN
from strict import by_h11

# RFC 9110 §7.6.1: none of these may reach an upstream from a proxy that opens no tunnel. (`TE: trailers` is judged apart: it is the proxy's own word.)
HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"upgrade", b"http2-settings", b"x-end-user", b"x_end_user", b"x-attache-key")

CLOSED = "behind trailers, whose end may be unclear, the connection is closed by a word in the answer: what follows is sent again (RFC 9112 §9.6)"
# Faults that are none, and why: (family, name, part of the fault's text). `*` in a name stands for any text.
ALLOWED = {
    ("method", "64 KiB", "let through where"): "a head is limited as a whole, not part by part",
    ("target", "UTF-8 in*", "not strictly well-formed"): "contract §3: what is not refused passes as it came; the other servers differ on it",
    ("h2 pseudo-header", ":scheme empty", ""): "the scheme is not read, and none is sent on",
    ("h2 trailer", "*", "let through where"): "the request goes on without that trailer",
    ("h2 trailer", "a pseudo-header", ""): "the request goes on without that trailer",
    ("chunk size", "2^6*", "neither answered"): "the chunk fits 64 bits, and its rest is waited for",
    ("chunk line end", "LF at the end", ""): CLOSED,
    ("trailer", "announced*", "were lost: 1 of 2; 200 closed"): CLOSED,
    ("cut", "chunks*", "were lost: 1 of 2; 200 closed"): CLOSED,
    ("path", "a?", "went on as"): "a query without pairs adds none (contract §3: the client's pairs in order)",
    ("target", "UTF-8 in*", "answers to other requests"): "the recorder's refusal of the same",
}
# Faults that are Attaché's, told and not yet mended: as in ALLOWED. They are counted apart; strike out what no longer occurs.
DEFECTS = {}


class Result:
    """What one case led to at one proxy."""

    def __init__(self, case, case_id, prefix, outcome):
        self.case, self.case_id, self.prefix, self.outcome = case, case_id, prefix, outcome
        self.seen, self.violations = [], []

    def gather(self, recorder, violations):
        self.seen, self.violations = recorder.seen(self.case_id), violations.get(self.case_id, [])

    @property
    def let_through(self):
        """Whether the request in question went on; one that follows a refusal in good order is another."""
        return any(not request.target.endswith(b"/next") for request in self.seen)

    def __str__(self):
        wrong = " VIOLATION" if self.violations else ""
        return f"{self.outcome} / {len(self.seen)}{wrong}"


def faults(result):
    """Everything that is wrong with one result; empty when nothing is."""
    case, outcome, seen = result.case, result.outcome, result.seen
    meant = case.meant(result.case_id, result.prefix)
    said = [(request.target, request.body) for request in seen]
    # Where the upstream answers before a body is whole, the next request may be whole first, on another connection.
    early = any(target.endswith(b"/early") for target, _ in meant)
    found = []
    if len(said) > len(meant):
        found.append(f"{len(said)} requests where {len(meant)} were meant: {[target for target, _ in said]}")
    elif not (all(one in meant for one in said) if early else is_within(said, meant)):
        found.append(f"not what was meant: {short(said)} instead of {short(meant)}")
    if case.may == ALL and len(said) < len(meant):
        found.append(f"sound requests were lost: {len(said)} of {len(meant)}; {outcome}")
    if case.may in (REFUSE, DENY):
        errors = all(400 <= status < 600 for status in outcome.statuses)
        if not errors or len(outcome.statuses) > 1:
            found.append(f"no refusal: {outcome}")
        if case.may == REFUSE and not outcome.closed:
            found.append(f"refused, and the connection lives: {outcome}")
    if case.may == EITHER and not outcome.closed and len(outcome.answers) < len(meant):
        found.append(f"neither answered nor refused, and the connection lives: {len(outcome.answers)} answers to {len(meant)} requests")
    answered = [answer.saw.split(" ", 1)[-1].encode("latin-1") for answer in outcome.answers if answer.saw]
    if 999 in outcome.statuses:
        found.append("bytes came back that are no answer")
    if not is_within(answered, [target for target, _ in meant]):
        found.append(f"answers to other requests than the client's: {answered}")
    found += [f"not strictly well-formed: {fault} in …{data[-160:]!r}" for fault, data in result.violations]
    for request in seen:
        found += faults_of_request(request, result.prefix)
    return found


def is_within(some, all_of_them):
    """Whether `some` are among `all_of_them`, in their order."""
    left = iter(all_of_them)
    return all(one in left for one in some)


def faults_of_request(request, prefix):
    found = [f"a hop-by-hop header went on: {name.decode()}" for name in HOP_BY_HOP if request.all(name)]
    if request.all(b"te") not in ([], [b"trailers"]):
        found.append(f"TE went on: {request.all(b'te')!r}")
    wanted = [b"Bearer " + TOKEN.encode()] if prefix == b"/tok/" else []
    if request.all(b"authorization") != wanted:
        found.append(f"Authorization was {request.all(b'authorization')!r}")
    if request.trailers and any(name.lower() in (b"x-end-user", b"x-attache-key", b"cookie", b"proxy-authorization") for name, _ in request.trailers):
        found.append(f"a trailer went on that its header would not: {request.trailers!r}")
    return found


def differences(ours, others):
    """Where every other proxy lets nothing through, ours must not either."""
    if not others or not ours.let_through or any(other.let_through for other in others):
        return []
    said = ", ".join(str(other) for other in others)
    return [f"let through where the others refuse: {ours} against {said}"]


def listed(table, case, fault):
    """The reason that a table gives for this fault, or None."""
    for (family, name, part), reason in table.items():
        if case is not None and family == case.family and fnmatch.fnmatchcase(case.name, name) and part in fault:
            return reason
    return None


def stray(recorder):
    """Requests that name no case, and bytes that python h11 reads otherwise than the strict reader."""
    found = [f"a request of no case: {request!r}" for request in recorder.by_case.get(None, [])]
    for connection in recorder.connections:
        if connection.tunnelled:
            continue  # judged by what was let through at all
        data = bytes(connection.data)
        targets, fault = by_h11(data)
        ours = [bytes(request.target) for request in connection.reader.requests]
        if connection.reader.violation is None and (fault or targets != ours):
            found.append(f"h11 reads {targets} ({fault}) where the strict reader reads {ours}: …{data[-200:]!r}")
    return found


def short(pairs):
    return [(target[-40:], body if len(body) < 60 else body[:60] + b"...") for target, body in pairs]


