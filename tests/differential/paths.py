"""Paths that servers read differently (THREATS 5): each is refused, or goes on byte for byte as it was matched. nginx and haproxy are shown beside."""

import concurrent.futures
import itertools

from client import exchange
from judge import is_within

ALLOWED_TO_PASS, MUST_REFUSE = "pass", "refuse"

# Spellings of one dot and of what stands behind a segment. Contract §3: `%2E` and `%2F` are decoded until stable, and a `;` ends the segment.
DOTS = ("..", ".%2e", "%2e.", "%2e%2e", "%2E%2e", ".", "%2e")
ENDS = ("/x", "%2fx", "%2Fx", "", ";/x", ";a=b/x", "%2f..%2fx")
DENIED = ["a%s%s" % (slash, dots + end) for slash, dots, end in itertools.product(("/", "%2f", "//"), DOTS, ENDS)]
DENIED += [
    "a\\..\\x", "a/..\\x", "a\\x", "a%5cx", "a%5Cx", "a/..%5cx", "a/..%5C..%5cx", "\\", "%5c", "a%00", "a%00/x", "%00", "a/%00/../x", "a%", "a%2", "a%2/x", "a%zz", "a%%", "a%%2e", "a%2%65", "a%u002e",
    "a%g0", "a/%2e%2e%00", "..", ".", "../", "./", "./a", "../a", "%2e%2e/", ";/../a", "a/.;/x", "a/..;", "a/.%2e;x=1/y", "a/%2e;/x", "a/../../../../etc/passwd", "a//../x", "a/b/../../c",
]
PASSED = [
    "a", "a/", "a//", "a//b", "//a", "a///b", "api../x", "..api/x", "a/...", "a/.../x", "a/....", "a.", "a..", "a../", "a/x.", "a;x", "a;x/y", ";", ";/x", "a;..", "a;/b", "a/b;..;c/d", "a%3b", "a%3b..", "a/..%3bx", "a%3B/x",
    "a%2fb", "a%2Fb", "%2f", "%2f%2f", "a%252e%252e/x", "a/%252e%252e/x", "a/%252e%252e%252fx", "a/%25%32%65x", "a%255cx", "a%2500", "a%25", "a%25xx", "a%252", "%25", "a%c0%ae", "a/%c0%ae%c0%ae/x", "a/%c0%af", "a/%e0%80%ae/x",
    "a/%c1%9c", "a%ff", "a/%uff0e".replace("%u", "%25u"), "a%20b", "a+b", "a%2Bb", "a%0a", "a%0d%0ax", "a%09", "a%7f", "a%3f", "a%3fb=c", "a%23", "a:b", "a@b", "a,b", "a=b", "a&b", "a'b", "a(b)", "a!b", "a$b", "a*b", "a~b", "~", "-", "_",
    "%41", "%61", "A", "a%2e", "a%2eb", "%2ea", "%2e%2ea", "a/%2e%2e%2e", "a/.%2e.", "a?../x", "a?x=/../y", "a?x=%2e%2e", "a?", "a??", "a/?x", "a?x=%zz", "a?x=%", "a?\\", "a?x=%00", "a;jsessionid=1?x", "c:/x", "con", "a.php/x",
    ".git", ".well-known/x", ".a", "..a", "a/.b/c",
]


class Path:
    """A case of the report: where it stands and how it reads."""

    family = "path"

    def __init__(self, tail, may):
        self.name, self.may = tail, may


def run(proxy, cases, letter):
    def one(number, case):
        case_id = f"c{number:04}{letter}"
        sent = f"/any/{case_id}/{case.name}"
        outcome = exchange(proxy.port, [f"GET {sent} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()], due=1, patience_s=10)
        # What went on may have lost the id: the answer says what was seen, too.
        return sent, outcome, [answer.saw.partition(" ")[2] for answer in outcome.answers if answer.saw]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(one, range(len(cases)), cases))


def suite(ours, others):
    """Rows of the table, and the faults as (case, text)."""
    cases = [Path(tail, MUST_REFUSE) for tail in DENIED] + [Path(tail, ALLOWED_TO_PASS) for tail in PASSED]
    done = [run(proxy, cases, "p") for proxy in (ours, *others)]
    found, rows = [], []
    for case, *results in zip(cases, *done):
        (sent, outcome, saw), *_ = results
        if case.may == MUST_REFUSE:
            if saw or outcome.statuses != [400] or b"urn:attache:bad-path" not in outcome.raw:
                found.append((case, f"no bad-path: {outcome}, upstream saw {saw}"))
        elif saw != [sent]:
            found.append((case, f"{sent} went on as {saw}; {outcome}"))
        rows.append([case.name, case.may, *(shown(*result) for result in results)])
    lost = [request for request in ours.recorder.by_case.get(None, [])]
    found += [(None, f"a request left the route's prefix: {request!r}") for request in lost]
    found += [(None, f"not strictly well-formed: {fault}") for _, fault, _ in ours.recorder.violations()]
    return rows, found


def shown(sent, outcome, saw):
    if not saw:
        return str(outcome)
    return "as it came" if is_within(saw, [sent]) else f"as {saw[0]}"
