//! What the fuzz targets may call of this room, which is not public otherwise. Built under `cfg(fuzzing)`, and with the tests, so that a change that breaks a target is seen at once.

use super::id_token;
use super::reply::{self, Reply};
use crate::base::clock::UnixMillis;
use crate::provider::Registration;
use serde_json::Value;

/// A token endpoint's answer as the one form that is parsed on; `None` where it is a refusal or of no use.
pub fn granted(status: u16, body: &[u8], reg: &Registration) -> Option<Value> {
    match reply::read(status, body, reg, UnixMillis(1_767_225_600_000)) {
        Reply::Granted(value) => Some(value),
        Reply::Refused(_) | Reply::Unusable(_) => None,
    }
}

/// Whether one of these keys (a JWK Set) made the id token's signature.
pub fn signed_by(token: &str, keys: &Value) -> bool {
    id_token::signed_by(token, keys)
}
