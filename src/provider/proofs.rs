//! What the client proves itself and its tokens with, besides secrets and assertions: keys of its own and its certificate.

use crate::upstream::{Origin, TlsIdentity, Trust};
use std::sync::Arc;
use std::time::Duration;

/// The proofs that a registration makes. By default none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proofs {
    /// Each connection has a key of its own, and its tokens are good only together with proofs of that key (RFC 9449).
    pub dpop: bool,
    /// Shown to the authorization server and to the API (RFC 8705 §2, §3).
    pub identity: Option<Arc<TlsIdentity>>,
    /// Who vouches for the provider's servers, token endpoint and API alike, where that is not the machine's roots.
    pub trust: Option<Arc<Trust>>,
    /// For [`ClientAuth::SecretJwt`](super::ClientAuth::SecretJwt).
    pub secret_jwt: Option<SecretJwt>,
}

/// A client secret that the client makes itself: `{iss, sub: client_id, aud, iat, exp}`, signed with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretJwt {
    pub issuer: Box<str>,
    pub audience: Box<str>,
    pub ttl: Duration,
}

impl Proofs {
    /// The origin as calls with this registration's tokens reach it: with its certificate and no other, for they are bound to that where the
    /// provider binds them (RFC 8705 §3).
    pub fn reach(&self, origin: Arc<Origin>) -> Arc<Origin> {
        let origin = self.trusted(origin);
        if origin.identity == self.identity { origin } else { origin.called_as(self.identity.as_ref()) }
    }

    /// The origin as the provider's calls without a token reach it: whom to trust is a matter of the place.
    pub fn trusted(&self, origin: Arc<Origin>) -> Arc<Origin> {
        if origin.trust == self.trust { origin } else { origin.trusting(self.trust.as_ref()) }
    }
}
