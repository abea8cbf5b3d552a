//! Reads token endpoints' answers as they are in the wild and gives the `oauth2` crate the one form that its parser takes.
//!
//! Providers answer with other 2xx codes, form-encoded bodies, `expires_in` as text, scopes as a list, errors under 200 (quirks Q31 to Q55).
//! Everything here is bounded by the fetch's limit on a body, and nothing of a body goes into an error.

use super::error::{TokenError, known_code};
use crate::provider::Registration;
use serde_json::{Map, Value};
use std::time::Duration;

pub(super) type Members = Map<String, Value>;

/// Longer tokens are no tokens: no request head would take them.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// An id token goes on no request; one with every group of its user is longer than any other token.
const ID_TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A century: longer lives are "never" in all but name, and sums with them stay in range.
const EXPIRES_IN_S_MAX: u64 = 100 * 365 * 24 * 3600;

#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// RFC 6749 §5.1, spelled as the RFC has it.
    Granted(Value),
    /// An error; the code where it is a known one.
    Refused(Option<&'static str>),
    /// Neither; the words complete "the provider answered 200 with …".
    Unusable(&'static str),
}

/// An answer that is no success.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    Refused(Option<&'static str>),
    Unusable(&'static str),
}

impl Fault {
    pub(super) fn into_error(self, status: u16, retry_after: Option<Duration>) -> TokenError {
        match self {
            Fault::Refused(code) => TokenError::refused(status, code, retry_after),
            Fault::Unusable(why) => TokenError::unusable(status, why, retry_after),
        }
    }
}

pub(super) fn read(status: u16, body: &[u8], reg: &Registration) -> Reply {
    match members(status, body).and_then(|fields| granted(&fields, reg).map_err(Fault::Unusable)) {
        Ok(reply) => Reply::Granted(reply),
        Err(Fault::Refused(code)) => Reply::Refused(code),
        Err(Fault::Unusable(why)) => Reply::Unusable(why),
    }
}

/// The members of an answer that is a success.
pub(super) fn members(status: u16, body: &[u8]) -> Result<Members, Fault> {
    if (300..400).contains(&status) {
        return Err(Fault::Unusable("a redirect, which is not followed"));
    }
    let fields = fields(body).map_err(Fault::Unusable)?;
    if let Some(code) = refusal(&fields) {
        return Err(Fault::Refused(code));
    }
    if !(200..300).contains(&status) {
        return Err(Fault::Unusable("no error code that can be read"));
    }
    Ok(fields)
}

/// The answer's members. The label on it is not asked: JSON comes as text/html, and forms come as JSON (Q31, Q32).
fn fields(body: &[u8]) -> Result<Members, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "bytes that are not text")?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = unwrap_call(text);
    if text.is_empty() {
        return Err("an empty body");
    }
    if text.starts_with('{') {
        // The parser's error holds a piece of the body in some cases, so that it is dropped here.
        return serde_json::from_str(text).map_err(|_| "broken JSON");
    }
    if text.starts_with('<') {
        return Err("a page instead of a token reply");
    }
    if !text.contains('=') || text.contains(|c: char| c.is_control() || c == ' ' || c == '{') {
        return Err("neither JSON nor a form");
    }
    Ok(form_urlencoded::parse(text.as_bytes()).map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect())
}

/// `callback( {…} );` is the object within (Q33).
fn unwrap_call(text: &str) -> &str {
    let inner = || {
        let (name, rest) = text.split_once('(')?;
        let named = !name.is_empty() && name.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
        let inner = rest.trim_end_matches(';').trim_end().strip_suffix(')')?.trim();
        (named && inner.starts_with('{')).then_some(inner)
    };
    inner().unwrap_or(text)
}

/// `Some` if the answer is an error, whatever its status; with the code, where it is one of those we know.
fn refusal(fields: &Members) -> Option<Option<&'static str>> {
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(true) | Value::Object(_) => true,
    };
    if let Some(error) = fields.get("error").filter(|error| says(error)) {
        return Some(code_in(error));
    }
    let errors = fields.get("errors").filter(|errors| says(errors))?;
    // Beside a token it is some API's habit; alone it is Fitbit's way to refuse (Q51).
    if fields.contains_key("access_token") { None } else { Some(code_in(errors.get(0).unwrap_or(errors))) }
}

fn code_in(error: &Value) -> Option<&'static str> {
    match error {
        Value::String(code) => known_code(code),
        Value::Object(members) => {
            ["code", "type", "errorType", "error"].iter().find_map(|name| members.get(*name)?.as_str().and_then(known_code))
        }
        _ => None,
    }
}

fn granted(fields: &Members, reg: &Registration) -> Result<Value, &'static str> {
    let mut reply = Map::new();
    let access_token = fields.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    reply.insert("access_token".into(), checked(access_token.ok_or("no access token")?)?.into());
    // Null, an empty string or another type is "none" (Q44, Q55): the old one stays.
    if let Some(token) = fields.get("refresh_token").and_then(Value::as_str).filter(|token| !token.is_empty()) {
        reply.insert("refresh_token".into(), checked(token)?.into());
    }
    if let Some(token) = fields.get("id_token").and_then(Value::as_str).filter(|token| token.len() <= ID_TOKEN_BYTES_MAX) {
        reply.insert("id_token".into(), token.into());
    }
    let token_type = fields.get("token_type").and_then(Value::as_str).map(str::trim);
    let token_type = token_type.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= 64);
    reply.insert("token_type".into(), token_type.unwrap_or("Bearer").into());
    if let Some(seconds) = fields.get("expires_in").and_then(seconds) {
        reply.insert("expires_in".into(), seconds.into());
    }
    let scopes = fields.get("scope").map(|scope| scopes(scope, reg)).unwrap_or_default();
    if !scopes.is_empty() {
        reply.insert("scope".into(), scopes.join(" ").into());
    }
    Ok(Value::Object(reply))
}

/// Control bytes would be a header injection when the token is attached (P35).
fn checked(token: &str) -> Result<&str, &'static str> {
    if token.chars().any(char::is_control) {
        return Err("a token that holds control bytes");
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err("a token that is too long");
    }
    Ok(token)
}

/// Seconds as a number or text, whole or not. Zero and less, and what cannot be read, is "not told" (Q38, Q39), never "already expired".
pub(super) fn seconds(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and finite; `as` saturates, and the limit is far below"
    )]
    let whole = number.max(1.0) as u64;
    Some(whole.min(EXPIRES_IN_S_MAX))
}

fn scopes(value: &Value, reg: &Registration) -> Vec<String> {
    let split = |text: &str| -> Vec<String> {
        let by_separator = |c: char| c.is_whitespace() || (reg.scope_separator.len() == 1 && reg.scope_separator.contains(c));
        let mut parts: Vec<String> = text.split(by_separator).filter(|part| !part.is_empty()).map(str::to_owned).collect();
        // A provider that takes spaces may still answer with commas (GitHub), unless the comma is part of a scope that was asked.
        if let [only] = parts.as_slice()
            && only.contains(',')
            && !reg.scopes.iter().any(|scope| scope.contains(','))
        {
            parts = only.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        }
        parts
    };
    match value {
        Value::String(text) => split(text),
        Value::Array(list) => list.iter().filter_map(Value::as_str).flat_map(split).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests::registration;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(status: u16, body: &str, expected: Reply) {
        assert_eq!(read(status, body.as_bytes(), &registration("http://127.0.0.1:1")), expected, "{status} {body}");
    }

    fn bearer() -> Value {
        json!({"access_token": "A1", "token_type": "Bearer"})
    }

    #[test]
    fn grants_in_every_shape() {
        check(200, r#"{"access_token":"A1","token_type":"Bearer"}"#, Reply::Granted(bearer()));
        for body in [
            r#"{"access_token":"A1"}"#,
            "\u{feff} {\"access_token\":\"A1\"}\n",
            r#"callback( {"access_token":"A1"} );"#,
            "access_token=A1",
            "access_token=A1&scope=&token_type=Bearer",
            r#"{"access_token":"A1","token_type":null,"refresh_token":"","expires_in":null,"scope":null,"error":null}"#,
            r#"{"access_token":"A1","token_type":7,"refresh_token":{"a":1},"expires_in":{"b":[]},"scope":7,"user":{"deep":[[[]]]},"id_token":5}"#,
            r#"{"access_token":"A1","expires_in":0}"#,
            r#"{"access_token":"A1","expires_in":-1,"ok":true,"error":false}"#,
            r#"{"access_token":"A1","expires_in":"soon"}"#,
        ] {
            for status in [200, 201, 203] {
                check(status, body, Reply::Granted(bearer()));
            }
        }
    }

    #[test]
    fn expiry_as_number_or_text() {
        for (text, expected) in [
            ("3600", 3600),
            ("\"3600\"", 3600),
            ("3600.0", 3600),
            ("\"3599.7\"", 3599),
            ("0.5", 1),
            ("1e3", 1000),
            ("18446744073709551615", EXPIRES_IN_S_MAX),
            ("1e300", EXPIRES_IN_S_MAX),
        ] {
            let mut reply = bearer();
            reply["expires_in"] = expected.into();
            check(200, &format!(r#"{{"access_token":"A1","expires_in":{text}}}"#), Reply::Granted(reply));
        }
    }

    #[test]
    fn scopes_as_text_or_list() {
        for (text, expected) in [
            (r#""a b""#, "a b"),
            (r#""a  b ""#, "a b"),
            (r#""repo,gist""#, "repo gist"),
            (r#"["a","b"]"#, "a b"),
            (r#"["a b",1,null]"#, "a b"),
        ] {
            let mut reply = bearer();
            reply["scope"] = expected.into();
            check(200, &format!(r#"{{"access_token":"A1","scope":{text}}}"#), Reply::Granted(reply));
        }
    }

    #[test]
    fn a_form_keeps_every_member() {
        let reply =
            json!({"access_token": "A 1", "refresh_token": "R&1", "token_type": "bearer", "expires_in": 28800, "scope": "repo gist"});
        check(200, "access_token=A+1&expires_in=28800&refresh_token=R%261&scope=repo%2Cgist&token_type=bearer", Reply::Granted(reply));
    }

    #[test]
    fn refusals_in_every_shape() {
        for (status, body, expected) in [
            (400, r#"{"error":"invalid_grant","error_description":"x"}"#, Some("invalid_grant")),
            (200, r#"{"error":"bad_refresh_token"}"#, Some("bad_refresh_token")),
            (200, "error=bad_verification_code&error_description=x", Some("bad_verification_code")),
            (200, r#"{"ok":false,"error":"invalid_refresh_token"}"#, Some("invalid_refresh_token")),
            (400, r#"{"errors":[{"errorType":"invalid_grant"}],"success":false}"#, Some("invalid_grant")),
            (400, r#"{"error":{"type":"invalid_client","message":"x"}}"#, Some("invalid_client")),
            (200, r#"callback( {"error":100019} );"#, None),
            (400, r#"{"error":"their_own"}"#, None),
            (200, r#"{"access_token":"A1","error":"invalid_grant"}"#, Some("invalid_grant")),
        ] {
            check(status, body, Reply::Refused(expected));
        }
    }

    #[test]
    fn junk_is_unusable() {
        for (status, body) in [
            (200, ""),
            (200, "<html><body>sign in</body></html>"),
            (200, "{\"access_token\":\"A1\""),
            (200, "[]"),
            (200, "{}"),
            (200, "ok"),
            (200, "wrong code = 7"),
            (200, r#"{"access_token":""}"#),
            (200, r#"{"access_token":{"a":1}}"#),
            (200, r#"{"access_token":"A1\r\nX-Evil: 1"}"#),
            (200, "access_token=A1%0d%0aX-Evil"),
            (200, r#"{"access_token":"A1","refresh_token":"R\u0000"}"#),
            (302, r#"{"access_token":"A1"}"#),
            (400, r#"{"message":"no"}"#),
            (503, r#"{"access_token":"A1"}"#),
        ] {
            let reply = read(status, body.as_bytes(), &registration("http://127.0.0.1:1"));
            assert!(matches!(reply, Reply::Unusable(_)), "{status} {body}: {reply:?}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(200, format!("{{\"a\":{deep}}}").as_bytes(), &registration("http://127.0.0.1:1")), Reply::Unusable("broken JSON"));
        assert!(matches!(read(200, &[0xff, 0xfe, 0], &registration("http://127.0.0.1:1")), Reply::Unusable(_)));
    }

    proptest! {
        #[test]
        fn any_body_has_an_outcome(status in 100u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(status, &body, &registration("http://127.0.0.1:1"));
        }

        #[test]
        fn any_json_has_an_outcome_and_a_grant_is_clean(expires in any::<f64>(), token in "\\PC{0,20}", scope in "\\PC{0,20}") {
            let body = json!({"access_token": token, "expires_in": expires, "scope": scope}).to_string();
            if let Reply::Granted(reply) = read(200, body.as_bytes(), &registration("http://127.0.0.1:1")) {
                prop_assert!(!reply["access_token"].as_str().unwrap_or_default().chars().any(char::is_control));
            }
        }
    }
}
