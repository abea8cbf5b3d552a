"""The grant types of the authorization server, each Authlib's own with the server's memory put in; token exchange is built on Authlib's base."""

from authlib.oauth2.rfc6749 import BaseGrant, InvalidGrantError, InvalidRequestError, TokenEndpointMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerGrant
from joserfc.jwk import ECKey

from state import Code

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"


def make(memory, issuer):
    """The classes to register, bound to one server's memory."""

    class AuthorizationCode(grants.AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]

        def save_authorization_code(self, code, request):
            asked = request.payload
            memory.codes[code] = Code(
                code, request.client.client_id, request.user, asked.redirect_uri, asked.scope or "",
                asked.data.get("code_challenge", ""), asked.data.get("code_challenge_method", ""),
            )

        def query_authorization_code(self, code, client):
            found = memory.codes.get(code)
            return found if found and found.client_id == client.client_id and not found.is_expired() else None

        def delete_authorization_code(self, authorization_code):
            memory.codes.pop(authorization_code.code, None)

        def authenticate_user(self, authorization_code):
            return authorization_code.user

    class Refresh(grants.RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token):
            found = memory.by_refresh(refresh_token)
            if found and found.refresh_used and not found.revoked:
                memory.counters["reuse_detected"] += 1
                memory.end_family(found.family)
            return found if found and not found.revoked else None

        def authenticate_user(self, refresh_token):
            return refresh_token.user

        def revoke_old_credential(self, refresh_token):
            refresh_token.refresh_used = True

    class ClientCredentials(grants.ClientCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]

    class Assertion(JWTBearerGrant):
        """RFC 7523 §2.1."""

        def resolve_issuer_client(self, issuer):
            return memory.clients.get(issuer)

        def resolve_client_public_key(self, client):
            return ECKey.import_key(client.public_key)

        def authenticate_user(self, subject):
            return subject

        def has_granted_permission(self, client, user):
            return True

        def get_audiences(self):
            return [issuer, f"{issuer}/oauth/token"]

    class Exchange(BaseGrant, TokenEndpointMixin):
        """RFC 8693 §2: an access token of this server for one of another client."""

        GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]

        def validate_token_request(self):
            self.request.client = self.authenticate_token_endpoint_client()
            form = self.request.form
            if form.get("subject_token_type") != ACCESS_TOKEN_TYPE:
                raise InvalidRequestError("subject_token_type must be that of an access token")
            subject = memory.by_access(form.get("subject_token"))
            if subject is None or not subject.is_live():
                raise InvalidGrantError("the subject token is not live")
            self.request.user = subject.user

        def create_token_response(self):
            token = self.generate_token(user=self.request.user, scope=self.request.payload.scope, include_refresh_token=False)
            # RFC 8693 §2.2.1: required in the answer.
            token["issued_token_type"] = ACCESS_TOKEN_TYPE
            self.save_token(token)
            return 200, token, self.TOKEN_RESPONSE_HEADER

    class Revocation(RevocationEndpoint):
        """RFC 7009. Either token ends the whole grant."""

        CLIENT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]

        def query_token(self, token_string, token_type_hint):
            return memory.by_access(token_string) or memory.by_refresh(token_string)

        def revoke_token(self, token, request):
            memory.counters["revoked"] += 1
            memory.end_family(token.family)

    return AuthorizationCode, Refresh, ClientCredentials, Assertion, Exchange, Revocation
