//! OAuth 1.0a (RFC 5849): a request is signed by the client's secret and the token's, over what is really sent of it.
//!
//! The signature stands in the `Authorization` header alone (RFC 5849 §3.5.1): never in the query, never in the body. It covers method, scheme,
//! host, path, query and, where the body is a form, the body; so it comes last, and what it signed is sent byte for byte. Each signature has a
//! nonce of its own, and whoever sends a request again signs it again. Deliberately absent: checking signatures, which is a server's work.

mod base_string;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod key;

pub use base_string::{Form, Signed};
pub use key::{Method, RsaKey, RsaKeyFault};

use super::AttachError;
use crate::base::clock::UnixMillis;
use crate::base::ids::random_bytes;
use crate::base::secret::Secret;
use base_string::push_encoded;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use std::borrow::Cow;

/// The client as the provider knows it ("consumer" in the words of OAuth 1.0), and how it signs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consumer {
    pub key: Box<str>,
    /// Empty for a client that signs by RSA, and for the few providers that give none.
    pub secret: Secret,
    pub method: Method,
    /// Goes into the header as it is and is never signed.
    pub realm: Option<Box<str>>,
}

/// The token of a signature: an end user's, a temporary one on the way to it, or none at all for the first step.
#[derive(Debug, Clone, Copy)]
pub struct TokenPair<'a> {
    pub token: &'a str,
    pub secret: &'a str,
}

/// What makes one signature unlike any other (RFC 5849 §3.3).
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Seconds since 1970.
    pub timestamp: i64,
    pub nonce: String,
}

impl Stamp {
    /// A stamp of this moment. The nonce is 120 random bits, so that no two are alike whatever the second; 30 letters and digits, because servers
    /// of oauthlib take 20 to 30 of those and nothing else.
    pub fn at(now: UnixMillis) -> Self {
        // A positive integer (RFC 5849 §3.3), also on a machine whose clock was never set.
        Stamp { timestamp: (now.0 / 1000).max(1), nonce: hex(&random_bytes::<15>()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(HEX[usize::from(digit)])).collect()
}

impl Consumer {
    /// The value of the `Authorization` header for a request that is ready but for it. `more` are further protocol parameters of the connect
    /// flow: `oauth_callback`, `oauth_verifier`.
    ///
    /// # Errors
    /// When the request must not be signed so (PLAINTEXT on a wire that anybody can read), or the key cannot sign.
    pub fn authorization(
        &self,
        request: &Signed<'_>,
        token: Option<TokenPair<'_>>,
        more: &[(&str, &str)],
        stamp: &Stamp,
    ) -> Result<HeaderValue, AttachError> {
        if self.method.shows_its_secrets() && !request.private {
            // RFC 5849 §3.4.4: the signature is the secrets themselves.
            return Err(AttachError::InTheOpen);
        }
        let timestamp = stamp.timestamp.to_string();
        let mut protocol = vec![
            ("oauth_consumer_key", &*self.key),
            ("oauth_nonce", &*stamp.nonce),
            ("oauth_signature_method", self.method.name()),
            ("oauth_timestamp", &*timestamp),
            ("oauth_version", "1.0"),
        ];
        protocol.extend(token.map(|token| ("oauth_token", token.token)));
        protocol.extend_from_slice(more);
        let signature = self.sign(request, token, &protocol)?;
        self.header(&protocol, &signature)
    }

    /// `oauth_signature` for exactly these protocol parameters (RFC 5849 §3.4).
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(
        &self,
        request: &Signed<'_>,
        token: Option<TokenPair<'_>>,
        protocol: &[(&str, &str)],
    ) -> Result<zeroize::Zeroizing<String>, AttachError> {
        let token_secret = token.map_or("", |token| token.secret);
        self.method.signature(|| base_string::of(request, protocol), self.secret.expose(), token_secret)
    }

    /// RFC 5849 §3.5.1.
    fn header(&self, protocol: &[(&str, &str)], signature: &str) -> Result<HeaderValue, AttachError> {
        let mut text = String::with_capacity(320);
        text.push_str("OAuth ");
        if let Some(realm) = &self.realm {
            text.push_str("realm=\"");
            for letter in realm.chars() {
                if matches!(letter, '"' | '\\') {
                    text.push('\\');
                }
                text.push(letter);
            }
            text.push_str("\", ");
        }
        for (name, value) in protocol.iter().copied().chain([("oauth_signature", signature)]) {
            if !text.ends_with(' ') {
                text.push_str(", ");
            }
            text.push_str(name);
            text.push_str("=\"");
            push_encoded(value.as_bytes(), &mut text);
            text.push('"');
        }
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|_| AttachError::Bytes { place: "a header" })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Whether a body under these headers is a form, and thus part of what is signed (RFC 5849 §3.4.1.3.1). One in a content coding is not: what
/// is sent then is no form.
pub fn is_form(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") && !headers.contains_key(CONTENT_ENCODING)
}

/// A client's query without parameters of the protocol's own. They are Attaché's to say, in the header, and nowhere else besides
/// (RFC 5849 §3.5): a client's `oauth_token` beside ours would leave it to the server whose token it is.
pub fn without_protocol(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_protocol) {
        return Cow::Borrowed(query);
    }
    Cow::Owned(query.split('&').filter(|pair| !is_protocol(pair)).collect::<Vec<_>>().join("&"))
}

/// Whether a form holds such a parameter; a body cannot lose one without being another body.
pub fn holds_protocol(form: &[u8]) -> bool {
    form.split(|byte| *byte == b'&').any(|pair| std::str::from_utf8(pair).is_ok_and(is_protocol))
}

fn is_protocol(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_encoding::percent_decode_str(name).take(6).eq(*b"oauth_")
}

#[cfg(test)]
mod tests;
