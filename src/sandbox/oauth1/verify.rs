//! Checks a signature as a server does (RFC 5849 §3.2), with nothing of the code that makes ours: both must come to the same from the RFC alone.

use super::{Refused, bad, denied};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use subtle::ConstantTimeEq;

/// RFC 5849 §3.6.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a signed request shows of itself, but for its body.
pub(super) struct Shown {
    pub(super) method: String,
    /// Path and query as they came.
    pub(super) target: String,
    pub(super) is_form: bool,
    host: String,
    protocol: Vec<(String, String)>,
}

/// Who signed.
pub(super) struct Verified {
    pub(super) client_id: String,
    pub(super) token: Option<String>,
    protocol: Vec<(String, String)>,
}

impl Verified {
    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.protocol.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl Shown {
    /// RFC 5849 §3.5.1: the header form alone is taken, and protocol parameters stand nowhere else.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Shown, Refused> {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if headers.get_all(AUTHORIZATION).iter().count() != 1 {
            return Err(denied("parameter_absent"));
        }
        let authorization = text(AUTHORIZATION);
        let list = authorization.strip_prefix("OAuth ").ok_or(denied("parameter_absent"))?;
        let mut protocol: Vec<(String, String)> = Vec::new();
        for item in list.split(',') {
            let (name, value) = item.trim().split_once('=').ok_or(bad("parameter_rejected"))?;
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or(bad("parameter_rejected"))?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| bad("parameter_rejected"))?.into_owned();
            if protocol.iter().any(|(known, _)| known == name) {
                return Err(bad("parameter_rejected"));
            }
            protocol.push((name.to_owned(), value));
        }
        let query = request.uri().query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name.starts_with("oauth_")) {
            return Err(bad("parameter_rejected"));
        }
        let kind = text(CONTENT_TYPE);
        Ok(Shown {
            method: request.method().to_string(),
            target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            is_form: kind.split(';').next().unwrap_or_default().trim() == "application/x-www-form-urlencoded",
            host: text(HOST).to_ascii_lowercase(),
            protocol,
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.protocol.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn verify(&self, body: &[u8], client_secret: &str, token_secret: &str) -> Result<Verified, Refused> {
        let key = format!("{}&{}", escaped(client_secret), escaped(token_secret));
        let mac = |algorithm| STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), self.base(body).as_bytes()));
        let expected = match self.get("oauth_signature_method") {
            Some("HMAC-SHA1") => mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Some("HMAC-SHA256") => mac(hmac::HMAC_SHA256),
            Some("PLAINTEXT") => key.clone(),
            _ => return Err(bad("signature_method_rejected")),
        };
        let given = self.get("oauth_signature").ok_or(bad("parameter_absent"))?;
        if !bool::from(given.as_bytes().ct_eq(expected.as_bytes())) || self.get("oauth_version").is_some_and(|version| version != "1.0") {
            return Err(denied("signature_invalid"));
        }
        Ok(Verified {
            client_id: self.get("oauth_consumer_key").unwrap_or_default().to_owned(),
            token: self.get("oauth_token").map(str::to_owned),
            protocol: self.protocol.clone(),
        })
    }

    fn base(&self, body: &[u8]) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut pairs: Vec<String> = Vec::new();
        let mut push = |name: &str, value: &str| pairs.push(format!("{}={}", escaped(name), escaped(value)));
        for (name, value) in &self.protocol {
            if !matches!(name.as_str(), "realm" | "oauth_signature") {
                push(name, value);
            }
        }
        let form = if self.is_form { body } else { &[] };
        for (name, value) in form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(form)) {
            push(&name, &value);
        }
        // `=` sorts behind `%`, `-` and `.`, so that a name must not be compared with what follows it.
        pairs.sort_by(|one, other| one.split_once('=').cmp(&other.split_once('=')));
        let host = self.host.strip_suffix(":80").unwrap_or(&self.host);
        format!("{}&{}&{}", self.method, escaped(&format!("http://{host}{path}")), escaped(&pairs.join("&")))
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}
