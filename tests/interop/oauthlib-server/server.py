"""A provider of OAuth 1.0a (RFC 5849) by oauthlib and Flask, with an API that takes signed calls alone, on plain http on loopback.

    python oauthlib-server/server.py --port 9003 --redirect-base http://localhost:7071

oauthlib decides everything that the protocol says: signatures, nonces, timestamps, verifiers. Prints one JSON line, {"port", "issuer"}, when it is
ready. GET /__counters tells what it saw.
"""

import argparse
import json
import logging
import secrets
import time
from urllib.parse import urlencode

from flask import Flask, jsonify, render_template_string, request
from oauthlib.oauth1 import RequestValidator, WebApplicationServer
from oauthlib.oauth1.rfc5849.errors import OAuth1Error
from werkzeug.serving import make_server

PAGE = """<!doctype html>
<title>oauthlib: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<h1>Sign in</h1>
<form method="post">
  <label>User <input name="user" required></label>
  <button name="answer" value="allow">Allow</button>
  <button name="answer" value="deny">Deny</button>
</form>
"""
SECRET = "oauthlib +&% secret"
METHODS = {"oauthlib-hmac": "HMAC-SHA1", "oauthlib-hmac256": "HMAC-SHA256", "oauthlib-plain": "PLAINTEXT"}


class Memory(RequestValidator):
    """What there is, all in memory; what oauthlib asks of it."""

    enforce_ssl = False
    realms = ("photos",)
    # What a client's id, a secret and a user may be made of is oauthlib's own idea: its check of nonces and tokens stays as it is.
    dummy_client, dummy_request_token, dummy_access_token = "dummy", "dummy", "dummy"

    def __init__(self, bases):
        self.bases = bases
        self.temporary, self.tokens, self.nonces = {}, {}, set()
        self.counters = {"request_tokens": 0, "access_tokens": 0, "calls": 0, "refused": 0}

    @property
    def allowed_signature_methods(self):
        return tuple(METHODS.values())

    def check_client_key(self, client_key):
        return client_key in METHODS

    def validate_client_key(self, client_key, request):
        return METHODS.get(client_key) == request.signature_method

    def get_client_secret(self, client_key, request):
        return SECRET

    def get_request_token_secret(self, client_key, token, request):
        return self.temporary.get(token, {"oauth_token_secret": "none"})["oauth_token_secret"]

    def get_access_token_secret(self, client_key, token, request):
        return self.tokens.get(token, {"oauth_token_secret": "none"})["oauth_token_secret"]

    def validate_timestamp_and_nonce(self, client_key, timestamp, nonce, request, request_token=None, access_token=None):
        used = (client_key, timestamp, nonce, request_token or access_token)
        is_new = used not in self.nonces and abs(time.time() - int(timestamp)) < 300
        self.nonces.add(used)
        return is_new

    def validate_redirect_uri(self, client_key, redirect_uri, request):
        return redirect_uri in [f"{base}/oauth/callback/{client_key}" for base in self.bases]

    def get_default_realms(self, client_key, request):
        return []

    def get_realms(self, token, request):
        return []

    def validate_requested_realms(self, client_key, realms, request):
        return True

    def validate_realms(self, client_key, token, request, uri=None, realms=None):
        return True

    def verify_realms(self, token, realms, request):
        return True

    def save_request_token(self, token, request):
        self.counters["request_tokens"] += 1
        self.temporary[token["oauth_token"]] = {**token, "client": request.client_key, "callback": request.redirect_uri}

    def verify_request_token(self, token, request):
        return token in self.temporary

    def validate_request_token(self, client_key, token, request):
        return self.temporary.get(token, {}).get("client") == client_key

    def get_redirect_uri(self, token, request):
        return self.temporary[token]["callback"]

    def save_verifier(self, token, verifier, request):
        self.temporary[token]["verifier"] = verifier["oauth_verifier"]

    def validate_verifier(self, client_key, token, verifier, request):
        return self.temporary.get(token, {}).get("verifier") == verifier

    def save_access_token(self, token, request):
        self.counters["access_tokens"] += 1
        user = self.temporary[request.resource_owner_key]["user"]
        self.tokens[token["oauth_token"]] = {**token, "client": request.client_key, "user": user}

    def invalidate_request_token(self, client_key, request_token, request):
        self.temporary.pop(request_token, None)

    def validate_access_token(self, client_key, token, request):
        return self.tokens.get(token, {}).get("client") == client_key


def asked():
    """The request as oauthlib takes it. The target is the one that came over the wire: Flask's own was unescaped and escaped again."""
    uri = f"http://{request.headers['Host']}{request.environ['RAW_URI']}"
    is_form = request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
    body = request.get_data()
    return uri, request.method, body.decode() if is_form else "", dict(request.headers)


def application(memory):
    app = Flask(__name__)
    server = WebApplicationServer(memory)

    @app.post("/initiate")
    def initiate():
        headers, body, status = server.create_request_token_response(*asked(), credentials=None)
        return body, status, headers

    @app.get("/authorize")
    def ask():
        if request.args.get("oauth_token") not in memory.temporary:
            return "unknown", 400
        return render_template_string(PAGE)

    @app.post("/authorize")
    def decide():
        token = request.args["oauth_token"]
        if request.form["answer"] != "allow":
            return "", 302, {"Location": f"{memory.temporary[token]['callback']}?{urlencode({'denied': token})}"}
        memory.temporary[token]["user"] = request.form["user"]
        headers, body, status = server.create_authorization_response(
            f"http://{request.headers['Host']}{request.environ['RAW_URI']}", "GET", None, {}, credentials={}
        )
        return body or "", status, headers

    @app.post("/token")
    def token():
        headers, body, status = server.create_access_token_response(*asked(), credentials={"screen_name": "Megan Bowen"})
        return body, status, headers

    @app.route("/me", methods=["GET", "POST", "PUT", "DELETE"])
    @app.route("/files/<path:name>", methods=["GET", "POST", "PUT", "DELETE"])
    def api(name=""):
        memory.counters["calls"] += 1
        try:
            taken, signed = server.validate_protected_resource_request(*asked(), realms=[])
        except OAuth1Error as error:
            taken, signed = False, error
        if not taken:
            memory.counters["refused"] += 1
            return jsonify(error="refused"), 401, {"WWW-Authenticate": 'OAuth realm="photos"'}
        whose = memory.tokens[signed.resource_owner_key]
        body = request.get_data()
        return jsonify(
            sub=whose["user"], client_id=whose["client"], target=request.environ["RAW_URI"], body_bytes=len(body), signed=len(signed.params),
            token_secret_shown=whose["oauth_token_secret"] in str(request.headers),
        )

    @app.get("/__counters")
    def counters():
        return jsonify(memory.counters)

    @app.post("/__revoke")
    def revoke():
        login = request.json["login"]
        memory.tokens = {text: token for text, token in memory.tokens.items() if token["user"] != login}
        return "", 204

    return app


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttl", help="taken and not needed: these tokens have no end")
    parser.add_argument("--redirect-base", action="append")
    asked_for = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    listener = make_server("127.0.0.1", asked_for.port, application(Memory(asked_for.redirect_base or ["http://localhost:7071"])), threaded=True)
    print(json.dumps({"port": listener.server_port, "issuer": f"http://127.0.0.1:{listener.server_port}"}), flush=True)
    listener.serve_forever()


if __name__ == "__main__":
    main()
