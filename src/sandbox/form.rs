//! Reads `application/x-www-form-urlencoded` parameters as RFC 6749 wants them: none twice, and an empty one is as good as absent.

use crate::sandbox::refused::Refused;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

/// The largest form taken, in bytes.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// Decoded parameters. They may hold secrets, so there is no `Debug`.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// RFC 6749 §3.1: a parameter must not be there twice; `resource` may (RFC 8707 §2).
    pub(super) fn parse(encoded: &[u8]) -> Result<Form, Refused> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(encoded).into_owned().collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if name != "resource" && pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refused::InvalidRequest("a parameter is there twice"));
            }
        }
        Ok(Form(pairs))
    }

    /// Reads the body of a form POST.
    pub(super) async fn read(headers: &HeaderMap, body: Incoming) -> Result<Form, Refused> {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refused::InvalidRequest("the body must be application/x-www-form-urlencoded"));
        }
        match Limited::new(body, FORM_BYTES_MAX).collect().await {
            Ok(body) => Form::parse(&body.to_bytes()),
            Err(_) => Err(Refused::InvalidRequest("the body is broken or over 64 KiB")),
        }
    }

    /// RFC 6749 §3.1: parameters sent without a value are treated as if they were omitted.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn need(&self, name: &str, missing: &'static str) -> Result<&str, Refused> {
        self.get(name).ok_or(Refused::InvalidRequest(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_refuses_repeats() {
        let form = Form::parse(b"a=1+2%26&b=&resource=x&resource=y").expect("valid");
        assert_eq!(form.get("a"), Some("1 2&"));
        assert_eq!(form.get("b"), None);
        assert_eq!(form.get("c"), None);
        assert!(Form::parse(b"a=1&a=1").is_err());
    }
}
