"""What the authorization server remembers: clients, codes and tokens, in memory, in the shapes that Authlib asks for."""

import time
from dataclasses import dataclass, field

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin

SECRET = "interop-secret"
CODE_LIVES_S = 60


@dataclass
class Client(ClientMixin):
    client_id: str
    auth_method: str
    grant_types: tuple
    redirect_uris: tuple = ()
    public_key: str = ""

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret):
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.auth_method

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type in self.grant_types


@dataclass
class Code(AuthorizationCodeMixin):
    code: str
    client_id: str
    user: str
    redirect_uri: str
    scope: str
    code_challenge: str
    code_challenge_method: str
    ends_at: float = field(default_factory=lambda: time.time() + CODE_LIVES_S)

    def get_redirect_uri(self):
        return self.redirect_uri

    def get_scope(self):
        return self.scope

    def is_expired(self):
        return time.time() > self.ends_at


@dataclass
class Token(TokenMixin):
    client_id: str
    user: str
    scope: str
    grant_type: str
    family: str
    access_token: str
    refresh_token: str
    expires_in: int
    issued_at: float = field(default_factory=time.time)
    revoked: bool = False
    refresh_used: bool = False

    def check_client(self, client):
        return self.client_id == client.client_id

    def get_scope(self):
        return self.scope

    def get_expires_in(self):
        return self.expires_in

    def is_revoked(self):
        return self.revoked

    def is_expired(self):
        return time.time() > self.issued_at + self.expires_in

    def is_live(self):
        return not self.revoked and not self.is_expired()


class Memory:
    """Everything that was issued. One thread a request; dictionary steps are atomic, and the tests' calls do not race for one code."""

    def __init__(self, clients):
        self.clients = {client.client_id: client for client in clients}
        self.codes = {}
        self.tokens = []
        self.counters = {"token_requests": 0, "grants": {}, "reuse_detected": 0, "revoked": 0}

    def by_access(self, text):
        return next((token for token in self.tokens if token.access_token == text), None)

    def by_refresh(self, text):
        return next((token for token in self.tokens if text and token.refresh_token == text), None)

    def end_family(self, family):
        """Ends all tokens that came from one consent."""
        for token in self.tokens:
            if token.family == family:
                token.revoked = True
