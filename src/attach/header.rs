//! A token in a header: bearer, another scheme word, or bare.

use super::AttachError;
use bytes::Bytes;
use http::header::HeaderValue;

/// `prefix` and the token as one sensitive value. Only visible ASCII passes (RFC 6750 §2.1 asks for less still), so that a hostile token
/// reply cannot inject a header.
pub(super) fn value(prefix: &str, token: &str) -> Result<HeaderValue, AttachError> {
    if token.is_empty() || !token.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(AttachError::Bytes { place: "a header" });
    }
    let mut text = Vec::with_capacity(prefix.len() + token.len());
    text.extend_from_slice(prefix.as_bytes());
    text.extend_from_slice(token.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|_| AttachError::Bytes { place: "a header" })?;
    value.set_sensitive(true);
    Ok(value)
}
