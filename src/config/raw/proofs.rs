//! The shape of `secret_jwt`.

use super::scalars::{KeyAlgorithm, Span, Text};
use schemars::JsonSchema;

/// The claims of a client secret that the client signs itself.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SecretJwt {
    /// `aud`: the provider, as it calls itself.
    audience: Option<Text>,
    /// `iss`, in the registration: the team or account that `client_key` is of.
    issuer: Option<Text>,
    /// How long a secret is good for; 5 min by default, 180 d at most. Each request has one of its own.
    ttl: Option<Span>,
    /// What it is signed by; ES256 by default.
    algorithm: Option<KeyAlgorithm>,
}
