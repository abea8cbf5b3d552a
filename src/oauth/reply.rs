//! Reads token endpoints' answers as they are in the wild and gives the `oauth2` crate the one form that its parser takes.
//!
//! Providers answer with other 2xx codes, form-encoded bodies, `expires_in` as text, scopes as a list, errors under 200 (quirks Q31 to Q55).
//! Everything here is bounded by the fetch's limit on a body, and nothing of a body goes into an error.

use super::error::TokenError;
use super::life::{seconds, span, until};
use super::refusal::{self, Refusal};
use super::values::captured;
use crate::base::clock::UnixMillis;
use crate::provider::{Path, Registration};
use serde_json::{Map, Value, json};
use std::time::Duration;

pub(super) type Members = Map<String, Value>;

/// Longer tokens are no tokens: no request head would take them.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// An id token goes on no request; one with every group of its user is longer than any other token.
const ID_TOKEN_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// RFC 6749 §5.1, spelled as the RFC has it, and what is ours to read of the rest.
    Granted(Value),
    /// An error.
    Refused(Refusal),
    /// Neither; the words complete "the provider answered 200 with …".
    Unusable(&'static str),
}

/// An answer that is no success.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    Refused(Refusal),
    Unusable(&'static str),
}

impl Fault {
    pub(super) fn into_error(self, status: u16, retry_after: Option<Duration>) -> TokenError {
        match self {
            Fault::Refused(refusal) => TokenError::refused(status, refusal, retry_after),
            Fault::Unusable(why) => TokenError::unusable(status, why, retry_after),
        }
    }
}

/// A token reply by its definition's map. `now` is for lives that are told as a moment.
pub(super) fn read(status: u16, body: &[u8], reg: &Registration, now: UnixMillis) -> Reply {
    read_as(status, body, reg, now, false)
}

/// The same. A refresh's may be `flat`: some providers wrap what a code brings, for there are several grants in it, and not what a refresh
/// token brings. Of a code's, what stands beside the place is another grant's.
pub(super) fn read_as(status: u16, body: &[u8], reg: &Registration, now: UnixMillis, flat: bool) -> Reply {
    let granted = members(status, body, reg).and_then(|fields| {
        let whole = Value::Object(fields);
        granted(&whole, reg, now, flat).map_err(|why| match refusal::by_rule(status, None, &whole, body, reg) {
            Some(refusal) => Fault::Refused(refusal),
            None => Fault::Unusable(why),
        })
    });
    match granted {
        Ok(reply) => Reply::Granted(reply),
        Err(Fault::Refused(refusal)) => Reply::Refused(refusal),
        Err(Fault::Unusable(why)) => Reply::Unusable(why),
    }
}

/// The members of an answer that is a success.
pub(super) fn members(status: u16, body: &[u8], reg: &Registration) -> Result<Members, Fault> {
    let by_rule = |whole: &Value| refusal::by_rule(status, None, whole, body, reg).map(Fault::Refused);
    if (300..400).contains(&status) {
        return Err(by_rule(&Value::Null).unwrap_or(Fault::Unusable("a redirect, which is not followed")));
    }
    let fields = fields(body).map_err(|why| by_rule(&Value::Null).unwrap_or(Fault::Unusable(why)))?;
    let whole = Value::Object(fields);
    if let Some(refusal) = refusal::of(status, &whole, body, reg) {
        return Err(Fault::Refused(refusal));
    }
    if !(200..300).contains(&status) {
        return Err(by_rule(&whole).unwrap_or(Fault::Unusable("no error code that can be read")));
    }
    match whole {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Members::new()),
    }
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

/// The standard reply and, beside it, what the definition asks of the rest: `wire` names the members.
fn granted(whole: &Value, reg: &Registration, now: UnixMillis, flat: bool) -> Result<Value, &'static str> {
    let map = &reg.dialect.reply;
    let at = |path: &Option<Path>, name: &str, within: &Value| match path {
        Some(path) => path.get(within).cloned(),
        None => within.get(name).cloned(),
    };
    let within = match &map.at {
        Some(path) => path.get(whole).or(flat.then_some(whole)).ok_or("no access token")?,
        None => whole,
    };
    let found = Found {
        access_token: at(&map.access_token, "access_token", within),
        refresh_token: at(&map.refresh_token, "refresh_token", within),
        token_type: at(&map.token_type, "token_type", within),
        // A relative life goes before a moment, for clocks differ (Q42).
        expires_in: at(&map.expires_in, "expires_in", within)
            .and_then(|life| span(&life, map.expires_in_unit))
            .or_else(|| map.expires_at.as_ref().and_then(|path| path.get(within)).and_then(|moment| until(moment, now))),
        scope: at(&map.scope, "scope", within),
        id_token: within.get("id_token").or_else(|| whole.get("id_token")).cloned(),
    };
    let further = map.also.iter().filter_map(|also| Some((&*also.account, second(also.at.get(whole)?, reg)?)));
    let mut also: Vec<(&str, Members)> = further.collect();
    let mut reply = match found.standard(reg) {
        Ok(reply) => reply,
        // Where a client asked for a user's scopes alone there is no bot: the one grant that is there is the connection's.
        Err(_) if found.access_token.is_none() && !also.is_empty() => also.remove(0).1,
        Err(why) => return Err(why),
    };
    if let Some(life) = map.refresh_expires_in.as_ref().and_then(|path| path.get(within)).and_then(seconds) {
        reply.insert("refresh_expires_in".into(), life.into());
    }
    let (learnt, lacking) = captured(reg, whole);
    if !learnt.is_empty() {
        reply.insert("learnt".into(), json!(learnt));
    }
    reply.extend(lacking.map(|name| ("lacking".to_owned(), name.into())));
    if !also.is_empty() {
        reply.insert("also".into(), json!(also));
    }
    Ok(Value::Object(reply))
}

/// A further grant of the same reply, if it is there; its members have the standard names.
fn second(within: &Value, reg: &Registration) -> Option<Members> {
    let member = |name: &str| within.get(name).cloned();
    let found = Found {
        access_token: member("access_token"),
        refresh_token: member("refresh_token"),
        token_type: member("token_type"),
        expires_in: member("expires_in").and_then(|life| span(&life, reg.dialect.reply.expires_in_unit)),
        scope: member("scope"),
        id_token: None,
    };
    found.standard(reg).ok()
}

/// The members of one grant, wherever they stood.
struct Found {
    access_token: Option<Value>,
    refresh_token: Option<Value>,
    token_type: Option<Value>,
    expires_in: Option<u64>,
    scope: Option<Value>,
    id_token: Option<Value>,
}

impl Found {
    fn standard(&self, reg: &Registration) -> Result<Members, &'static str> {
        let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let mut reply = Map::new();
        reply.insert("access_token".into(), checked(&text(&self.access_token).ok_or("no access token")?)?.into());
        // Null, an empty string or another type is "none" (Q44, Q55): the old one stays.
        if let Some(token) = text(&self.refresh_token) {
            reply.insert("refresh_token".into(), checked(&token)?.into());
        }
        if let Some(token) = self.id_token.as_ref().and_then(Value::as_str).filter(|token| token.len() <= ID_TOKEN_BYTES_MAX) {
            reply.insert("id_token".into(), token.into());
        }
        // Some providers' has spaces in it, and which word goes on a call is the definition's to say (Q37).
        let token_type = text(&self.token_type).map(|text| text.trim().to_owned());
        let fits = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && text.len() <= 64;
        reply.insert("token_type".into(), token_type.filter(fits).unwrap_or_else(|| "Bearer".into()).into());
        if let Some(seconds) = self.expires_in {
            reply.insert("expires_in".into(), seconds.into());
        }
        let scopes = self.scope.as_ref().map(|scope| scopes(scope, reg)).unwrap_or_default();
        if !scopes.is_empty() {
            reply.insert("scope".into(), scopes.join(" ").into());
        }
        Ok(reply)
    }
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

/// Scopes as a text holds them, by the registration's separator.
pub fn split_scopes(reg: &Registration, text: &str) -> Vec<String> {
    scopes(&Value::from(text), reg)
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
    use crate::oauth::life::EXPIRES_IN_S_MAX;
    use crate::oauth::tests::{START, registration};
    use proptest::prelude::*;

    fn check(status: u16, body: &str, expected: Reply) {
        assert_eq!(read(status, body.as_bytes(), &registration("http://127.0.0.1:1"), START), expected, "{status} {body}");
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
            check(status, body, Reply::Refused(expected.into()));
        }
    }

    /// Of a reply with several grants the one beside the place is another's. A refresh's reply may hold its one grant without the wrapping.
    #[test]
    fn a_grant_that_is_not_at_its_place_is_none() {
        let mut reg = registration("http://127.0.0.1:1");
        reg.dialect.reply.at = Path::parse("authed_user");
        let body = br#"{"ok":true,"access_token":"xoxb","authed_user_id":"U1"}"#;
        assert_eq!(read(200, body, &reg, START), Reply::Unusable("no access token"));
        assert!(matches!(read_as(200, body, &reg, START, true), Reply::Granted(reply) if reply["access_token"] == "xoxb"));
        let both = br#"{"access_token":"xoxb","authed_user":{"access_token":"xoxp"}}"#;
        for flat in [true, false] {
            assert!(matches!(read_as(200, both, &reg, START, flat), Reply::Granted(reply) if reply["access_token"] == "xoxp"));
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
            let reply = read(status, body.as_bytes(), &registration("http://127.0.0.1:1"), START);
            assert!(matches!(reply, Reply::Unusable(_)), "{status} {body}: {reply:?}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(
            read(200, format!("{{\"a\":{deep}}}").as_bytes(), &registration("http://127.0.0.1:1"), START),
            Reply::Unusable("broken JSON")
        );
        assert!(matches!(read(200, &[0xff, 0xfe, 0], &registration("http://127.0.0.1:1"), START), Reply::Unusable(_)));
    }

    proptest! {
        #[test]
        fn any_body_has_an_outcome(status in 100u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(status, &body, &registration("http://127.0.0.1:1"), START);
        }

        #[test]
        fn any_json_has_an_outcome_and_a_grant_is_clean(expires in any::<f64>(), token in "\\PC{0,20}", scope in "\\PC{0,20}") {
            let body = json!({"access_token": token, "expires_in": expires, "scope": scope}).to_string();
            if let Reply::Granted(reply) = read(200, body.as_bytes(), &registration("http://127.0.0.1:1"), START) {
                prop_assert!(!reply["access_token"].as_str().unwrap_or_default().chars().any(char::is_control));
            }
        }
    }
}
