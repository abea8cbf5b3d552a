//! A token as HTTP Basic credentials (RFC 7617 §2).

use super::{AttachError, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use zeroize::Zeroizing;

/// A token with a colon is `user:password` as it stands; one without is the user, with an empty password (as Stripe and many others take keys).
pub(super) fn value(token: &str) -> Result<HeaderValue, AttachError> {
    if token.is_empty() {
        return Err(AttachError::Bytes { place: "basic credentials" });
    }
    let pair = if token.contains(':') { Zeroizing::new(token.to_owned()) } else { Zeroizing::new(format!("{token}:")) };
    header::value("Basic ", &Zeroizing::new(STANDARD.encode(pair.as_bytes())))
}
