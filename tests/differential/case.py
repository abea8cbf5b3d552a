"""One case: bytes, and what may be let through because of them."""

# Six bytes that each run replaces by its own id, so that a body's length never changes.
ID = b"@@@@@@"
PREFIX = b"/any/" + ID + b"/"
HOST = b"Host: localhost\r\nX-End-User: megan\r\n"
# What an attacker hides. It must never be read as a request where the client did not mean one.
SMUGGLED = b"GET " + PREFIX + b"smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
NEXT = b"GET " + PREFIX + b"next HTTP/1.1\r\n" + HOST + b"\r\n"

# `refuse`: an error and a close, and nothing goes on. `deny`: an error, and nothing goes on; the framing is sound, so the connection may live.
# `all`: exactly `through` goes on. `either`: some of `through` in their order, which may be none.
REFUSE, DENY, ALL, EITHER = "refuse", "deny", "all", "either"


class Case:
    def __init__(self, family, name, data, may, through=(), pieces=None):
        """`through` is the (target's end, body) of each whole and well-formed request that the client meant, in order."""
        assert may in (REFUSE, DENY, ALL, EITHER) and (through or may in (REFUSE, DENY)), name
        self.family, self.name, self.data, self.may, self.through = family, name, data, may, list(through)
        # The places to cut the bytes at; all at once where there are none.
        self.pieces = pieces

    def sent(self, case_id, prefix=b"/any/"):
        data = with_id(self.data, case_id, prefix)
        cuts = [0, *(self.pieces or []), len(data)]
        return [data[begin:end] for begin, end in zip(cuts, cuts[1:]) if end > begin]

    def meant(self, case_id, prefix=b"/any/"):
        """The targets and bodies that may go on."""
        return [(with_id(PREFIX + end, case_id, prefix), with_id(body, case_id, prefix)) for end, body in self.through]


def with_id(data, case_id, prefix):
    return data.replace(ID, case_id.encode()).replace(b"/any/", prefix)


def post(fields, rest=b"", target=b"a", version=b"HTTP/1.1", method=b"POST"):
    return method + b" " + PREFIX + target + b" " + version + b"\r\n" + HOST + fields + b"\r\n" + rest


def chunked(body, fields=b""):
    return post(b"Transfer-Encoding: chunked\r\n" + fields, body)
