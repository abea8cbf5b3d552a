//! The Standard Webhooks format: `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,…` over `id.timestamp.body` by HMAC-SHA256.

use crate::base::clock::UnixMillis;
use crate::base::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Request};
use zeroize::Zeroizing;

/// What secrets of the format begin with.
const PREFIX: &str = "whsec_";
/// The bytes that one has, by the format's own advice.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A secret that both ends know: base64 of 24 to 64 bytes, `whsec_` before it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecret(Secret);

impl WebhookSecret {
    /// `None` where the text is none.
    pub fn parse(text: &str) -> Option<WebhookSecret> {
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        BYTES.contains(&bytes.len()).then(|| WebhookSecret(Secret::new(encoded)))
    }

    fn sign(&self, message: &[u8]) -> String {
        // It was decoded when it was parsed.
        let bytes = Zeroizing::new(STANDARD.decode(self.0.expose()).unwrap_or_default());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, message)))
    }
}

/// The signed request. The timestamp is the sending's, for receivers refuse old ones.
///
/// # Errors
/// When the URL is none.
pub(super) fn request(url: &str, secret: &WebhookSecret, id: &str, body: &str, now: UnixMillis) -> Result<Request<Bytes>, http::Error> {
    let seconds = (now.0 / 1000).to_string();
    let signature = secret.sign(format!("{id}.{seconds}.{body}").as_bytes());
    Request::post(url)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(ID, id)
        .header(TIMESTAMP, seconds)
        .header(SIGNATURE, signature)
        .body(Bytes::copy_from_slice(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the format's own specification and libraries.
    #[test]
    fn signs_as_the_specification_shows() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = "{\"test\": 2432232314}";
        let request = request("https://example.com/", &secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, UnixMillis(1_614_265_330_500))
            .expect("a request");
        assert_eq!(request.headers()["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(request.headers()["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn a_secret_has_a_length_and_is_base64() {
        assert!(WebhookSecret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_some());
        for unfit in ["", "whsec_", "hunter2", "whsec_c2hvcnQ=", "whsec_!!!!"] {
            assert!(WebhookSecret::parse(unfit).is_none(), "{unfit}");
        }
    }
}
