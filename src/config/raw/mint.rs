//! The shapes of `jwt_bearer` and `token_exchange`.

use super::scalars::{KeyAlgorithm, Text};
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// The assertion: `key` and `issuer`, or a `service_account`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct JwtBearer {
    /// The private key in PEM, best as `${file:PATH}`.
    key: Option<Text>,
    /// The `kid` that the provider knows the key by.
    key_id: Option<Text>,
    /// What the key signs by; the usual one of its kind by default.
    algorithm: Option<KeyAlgorithm>,
    /// `iss`: whom the provider knows the key of.
    issuer: Option<Text>,
    /// `sub`: on whose behalf; `{end_user}` is the call's end user.
    subject: Option<Text>,
    /// `aud`; the token endpoint by default.
    audience: Option<Text>,
    /// Further claims.
    claims: Option<BTreeMap<String, Text>>,
    /// Google's JSON file in place of `key`, `key_id`, `issuer` and `audience`, as `${file:PATH}`. The scopes go into the assertion.
    service_account: Option<Text>,
}

/// The exchange.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TokenExchange {
    /// Whose tokens are exchanged: an id under `providers`.
    from: Text,
    /// What they are: `access_token` by default, another word of RFC 8693 §3, or a URI.
    subject_token_type: Option<Text>,
    /// What is asked for.
    requested_token_type: Option<Text>,
    /// Whom the new token is for.
    audience: Option<Vec<Text>>,
}
