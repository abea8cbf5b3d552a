"""Checks signed requests, one JSON object a line, by oauthlib: it must take each as a server, and sign it as we did as a client.

    python check.py KEY.pem < requests.jsonl

KEY.pem is the key that RSA requests are signed by. Ends with 1 at the first that differs, and says which.
"""

import json
import logging
import pathlib
import sys
from types import SimpleNamespace

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import signature
from oauthlib.oauth1.rfc5849.utils import parse_authorization_header

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def main():
    logging.getLogger("oauthlib").setLevel(logging.ERROR)
    key = pathlib.Path(sys.argv[1]).read_text()
    public = load_pem_private_key(key.encode(), None).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    count = 0
    for line in sys.stdin:
        asked = json.loads(line)
        said = dict(parse_authorization_header(asked["authorization"]))
        why = refused(asked, said, public) or differs(asked, said, key)
        if why:
            print(f"{why}\n{line}")
            sys.exit(1)
        count += 1
    print(f"{count} agree")


def refused(asked, said, public):
    """As a server reads it."""
    given = said["oauth_signature"]
    parameters = signature.collect_parameters(
        uri_query=asked["uri"].partition("?")[2], body=asked["form"] or [], headers={"Authorization": asked["authorization"]}, exclude_oauth_signature=True
    )
    request = SimpleNamespace(http_method=asked["method"], uri=asked["uri"], params=parameters, signature=unescaped(given), headers={}, body=asked["form"])
    secrets = (asked["secret"], asked["token_secret"] or "")
    taken = {
        "HMAC-SHA1": lambda: signature.verify_hmac_sha1(request, *secrets),
        "HMAC-SHA256": lambda: signature.verify_hmac_sha256(request, *secrets),
        "RSA-SHA1": lambda: signature.verify_rsa_sha1(request, public),
        "PLAINTEXT": lambda: signature.verify_plaintext(request, *secrets),
    }[asked["signature_method"]]()
    return None if taken else "oauthlib refuses the signature"


def differs(asked, said, key):
    """As a client signs it."""
    client = Client(
        asked["key"],
        client_secret=asked["secret"],
        resource_owner_key=asked["token"],
        resource_owner_secret=asked["token_secret"],
        verifier=asked["verifier"],
        signature_method=asked["signature_method"],
        rsa_key=key,
        timestamp=asked["timestamp"],
        nonce=asked["nonce"],
    )
    _, headers, _ = client.sign(asked["uri"], asked["method"], body=asked["form"], headers=FORM if asked["form"] else None)
    theirs = dict(parse_authorization_header(headers["Authorization"]))
    ours = {name: value for name, value in said.items() if name != "realm"}
    return None if theirs == ours else f"oauthlib signs {theirs}, we {ours}"


def unescaped(text):
    from urllib.parse import unquote

    return unquote(text)


if __name__ == "__main__":
    main()
