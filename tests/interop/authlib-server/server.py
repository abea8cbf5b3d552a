"""An authorization server of Authlib and Flask, with an API that its access tokens open, on plain http on loopback.

    python authlib-server/server.py --port 9002 --redirect-base http://localhost:7071 [--ttl 5] [--public-key KEY.pem]

Its habits differ from node-oidc-provider's: no discovery, no `iss` in the answer, redirects by 302, one page for login and consent, no OIDC.
Prints one JSON line, {"port", "issuer"}, when it is ready. GET /__counters tells what it saw.
"""

import argparse
import json
import logging
import os
import pathlib
import secrets

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain http; set before Authlib reads it

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Flask, jsonify, render_template_string, request
from werkzeug.serving import make_server

import grants
from state import Client, Memory, Token

CODE = ("authorization_code", "refresh_token")
ALL_GRANTS = (
    *CODE, "client_credentials",
    "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:token-exchange",
)

PAGE = """<!doctype html>
<title>Authlib: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<h1>Sign in</h1>
<p>{{ client }} asks for: {{ scope or "nothing in particular" }}</p>
<form method="post">
  <label>User <input name="user" required></label>
  <button name="answer" value="allow">Allow</button>
  <button name="answer" value="deny">Deny</button>
</form>
"""


def clients(bases, public_key):
    """Their ids are also the provider ids in the tests' routes.yaml, because the redirect URI ends in the provider's id."""

    def web(client_id, auth_method):
        return Client(client_id, auth_method, CODE, tuple(f"{base}/oauth/callback/{client_id}" for base in bases))

    return [
        web("authlib-post", "client_secret_post"),
        web("authlib-basic", "client_secret_basic"),
        Client("authlib-app", "client_secret_post", ("client_credentials",)),
        Client("authlib-jwt", "none", ("urn:ietf:params:oauth:grant-type:jwt-bearer",), public_key=public_key),
        Client("authlib-exchange", "client_secret_basic", ("urn:ietf:params:oauth:grant-type:token-exchange",)),
    ]


def application(memory, issuer, ttl):
    app = Flask(__name__)
    oauth = AuthorizationServer(app, query_client=memory.clients.get, save_token=lambda token, asked: save(memory, token, asked))
    oauth.register_token_generator("default", oauth.create_bearer_token_generator({
        "OAUTH2_REFRESH_TOKEN_GENERATOR": True,
        "OAUTH2_TOKEN_EXPIRES_IN": dict.fromkeys(ALL_GRANTS, ttl),
    }))
    code, refresh, app_token, assertion, exchange, revocation = grants.make(memory, issuer)
    oauth.register_grant(code, [CodeChallenge(required=True)])
    for grant in (refresh, app_token, assertion, exchange):
        oauth.register_grant(grant)
    oauth.register_endpoint(revocation)

    @app.get("/oauth/authorize")
    def ask():
        try:
            grant = oauth.get_consent_grant(end_user=None)
        except OAuth2Error as error:
            return jsonify(dict(error.get_body())), error.status_code
        return render_template_string(PAGE, client=grant.client.client_id, scope=request.args.get("scope"))

    @app.post("/oauth/authorize")
    def decide():
        user = request.form["user"] if request.form["answer"] == "allow" else None
        return oauth.create_authorization_response(grant=oauth.get_consent_grant(end_user=user), grant_user=user)

    @app.post("/oauth/token")
    def token():
        memory.counters["token_requests"] += 1
        return oauth.create_token_response()

    @app.post("/oauth/revoke")
    def revoke():
        return oauth.create_endpoint_response(revocation.ENDPOINT_NAME)

    @app.get("/me")
    @app.get("/api/echo")
    def api():
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        found = memory.by_access(text) if scheme == "Bearer" else None
        if found is None or not found.is_live():
            return jsonify(error="invalid_token"), 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        told = {"sub": found.user, "client_id": found.client_id, "scope": found.scope, "grant_type": found.grant_type}
        if request.path == "/api/echo":
            told["headers"] = {name.lower(): value for name, value in request.headers.items()}
        return jsonify(told)

    @app.get("/__counters")
    def counters():
        return jsonify(memory.counters)

    return app


def save(memory, token, asked):
    grant_type = asked.payload.grant_type
    before = getattr(asked, "refresh_token", None)
    memory.counters["grants"][grant_type] = memory.counters["grants"].get(grant_type, 0) + 1
    memory.tokens.append(Token(
        asked.client.client_id, asked.user, token.get("scope", ""), grant_type,
        before.family if before else secrets.token_hex(8),
        token["access_token"], token.get("refresh_token", ""), token["expires_in"],
    ))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttl", type=int, default=5)
    parser.add_argument("--redirect-base", action="append")
    parser.add_argument("--public-key", type=pathlib.Path, help="PEM, of the client that signs assertions")
    asked = parser.parse_args()
    public_key = asked.public_key.read_text(encoding="ascii") if asked.public_key else ""
    memory = Memory(clients(asked.redirect_base or ["http://localhost:7071"], public_key))
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    listener = make_server("127.0.0.1", asked.port, lambda *call: app(*call), threaded=True)
    issuer = f"http://127.0.0.1:{listener.server_port}"
    app = application(memory, issuer, asked.ttl)
    print(json.dumps({"port": listener.server_port, "issuer": issuer}), flush=True)
    listener.serve_forever()


if __name__ == "__main__":
    main()
