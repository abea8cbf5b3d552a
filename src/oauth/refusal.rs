//! Which answers refuse, and what the definition says they mean: the codes at their places, and the signs of `errors`.
//!
//! A code that neither the RFCs nor the definition knows is kept nowhere, so that no text of a provider's reaches a log.

use super::error::known_code;
use super::values::text_of;
use crate::provider::{Registration, Sign};
use serde_json::Value;

/// What a definition says that an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Passing,
    EndsGrant,
    Client,
}

/// An answer that refuses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Refusal {
    /// The code, where it is one that we know.
    pub(super) code: Option<&'static str>,
    /// The definition's word on it, and the code as the definition writes it.
    pub(super) rule: Option<(Meaning, Option<Box<str>>)>,
}

impl From<Option<&'static str>> for Refusal {
    fn from(code: Option<&'static str>) -> Self {
        Refusal { code, rule: None }
    }
}

/// `Some` if the answer holds an error, whatever its status.
pub(super) fn of(status: u16, whole: &Value, body: &[u8], reg: &Registration) -> Option<Refusal> {
    let code = code(whole, reg)?;
    let text = code.as_deref();
    let by_rule = by_rule(status, text, whole, body, reg);
    Some(by_rule.unwrap_or_else(|| Refusal::from(text.and_then(known_code))))
}

/// What the definition's signs say of an answer without a grant. A server error or a rate limit is only what a sign with that very status says:
/// an overloaded provider's word on a grant is not to be trusted.
pub(super) fn by_rule(status: u16, code: Option<&str>, whole: &Value, body: &[u8], reg: &Registration) -> Option<Refusal> {
    let rules = &reg.dialect.errors;
    let found = code.map_or_else(|| self::code(whole, reg).flatten(), |code| Some(code.to_owned()));
    let overloaded = status == 429 || status >= 500;
    let lists = [(&rules.passing, Meaning::Passing), (&rules.ends_grant, Meaning::EndsGrant), (&rules.client, Meaning::Client)];
    lists.into_iter().find_map(|(signs, meaning)| {
        let sign = signs.iter().find(|sign| (sign.status.is_some() || !overloaded) && fits(sign, status, found.as_deref(), whole, body))?;
        Some(Refusal { code: found.as_deref().and_then(known_code), rule: Some((meaning, sign.code.clone())) })
    })
}

/// Whether an answer of the provider's API is what one of these signs says, by the words that hold for its token endpoint's.
pub fn is_sign_of<'s>(mut signs: impl Iterator<Item = &'s Sign>, status: u16, body: &[u8], reg: &Registration) -> bool {
    let whole = serde_json::from_slice(body).unwrap_or(Value::Null);
    let code = code(&whole, reg).flatten();
    signs.any(|sign| fits(sign, status, code.as_deref(), &whole, body))
}

/// Whether an answer is what a sign says. One that says nothing fits nothing.
pub(super) fn fits(sign: &Sign, status: u16, code: Option<&str>, whole: &Value, body: &[u8]) -> bool {
    let Sign { status: told, code: named, member, says } = sign;
    let said = told.is_some() || named.is_some() || member.is_some() || says.is_some();
    said && told.is_none_or(|told| told == status)
        && named.as_ref().is_none_or(|named| code.is_some_and(|code| named.eq_ignore_ascii_case(code)))
        && member.as_ref().is_none_or(|(path, value)| path.get(whole).and_then(text_of).is_some_and(|found| *found == **value))
        && says.as_ref().is_none_or(|says| String::from_utf8_lossy(body).contains(&**says))
}

/// `Some` if the answer says that it is an error; with the code, where one can be read.
pub(super) fn code(whole: &Value, reg: &Registration) -> Option<Option<String>> {
    let at_places = reg.dialect.errors.at.iter().filter_map(|path| path.get(whole));
    if let Some(error) = at_places.chain(whole.get("error")).find(|error| says(error)) {
        return Some(code_in(error));
    }
    let errors = whole.get("errors").filter(|errors| says(errors))?;
    // Beside a token it is some API's habit; alone it is Fitbit's way to refuse (Q51).
    if whole.get("access_token").is_some() { None } else { Some(code_in(errors.get(0).unwrap_or(errors))) }
}

fn says(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(list) => !list.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(true) | Value::Object(_) => true,
    }
}

fn code_in(error: &Value) -> Option<String> {
    match error {
        Value::Object(members) => ["code", "type", "errorType", "error"]
            .iter()
            .find_map(|name| {
                // Of several the one that is known goes first: `{"code": 17, "type": "invalid_grant"}`.
                members.get(*name)?.as_str().filter(|code| known_code(code).is_some()).map(str::to_owned)
            })
            .or_else(|| ["code", "type", "errorType", "error"].iter().find_map(|name| text_of(members.get(*name)?).map(Into::into))),
        Value::Bool(_) => None,
        other => text_of(other).map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::error::{TokenError, Verdict};
    use crate::oauth::reply::{Reply, read};
    use crate::oauth::tests::{START, registration};
    use crate::provider::Path;

    fn path(text: &str) -> Path {
        Path::parse(text).expect("a path")
    }

    fn with_rules() -> Registration {
        let code = |code: &str| Sign { code: Some(code.into()), ..Sign::default() };
        let mut reg = registration("http://127.0.0.1:1");
        let errors = &mut reg.dialect.errors;
        errors.at = vec![path("errcode"), path("error.deep.code")];
        errors.passing = vec![Sign { says: Some("not expired".into()), ..Sign::default() }, code("interaction_required")];
        errors.ends_grant = vec![
            code("40030"),
            Sign { status: Some(401), says: Some("Invalid refresh token".into()), ..Sign::default() },
            Sign { member: Some((path("status"), "503".into())), ..Sign::default() },
            Sign { status: Some(500), code: Some("gone".into()), ..Sign::default() },
        ];
        errors.client = vec![code("41002")];
        reg
    }

    fn check(status: u16, body: &str, expected: Verdict, told: &str) {
        let refused = match read(status, body.as_bytes(), &with_rules(), START) {
            Reply::Refused(refusal) => TokenError::refused(status, refusal, None),
            Reply::Unusable(why) => TokenError::unusable(status, why, None),
            Reply::Granted(_) => panic!("granted: {body}"),
        };
        assert_eq!(refused.verdict, expected, "{status} {body}");
        assert!(refused.summary.ends_with(told), "{}", refused.summary);
    }

    #[test]
    fn q71_an_apis_answer_is_known_by_all_that_a_sign_names() {
        let reg = registration("http://127.0.0.1:1");
        let member = |path: &str, equals: &str| Some((Path::parse(path).expect("a path"), equals.into()));
        let check = |sign: &Sign, body: &str, expected: bool| {
            assert_eq!(is_sign_of([sign].into_iter(), 400, body.as_bytes(), &reg), expected, "{sign:?} {body}");
        };
        let facebook = Sign { status: Some(400), member: member("error.code", "190"), ..Sign::default() };
        check(&facebook, r#"{"error":{"code":190,"error_subcode":463}}"#, true);
        check(&facebook, r#"{"error":{"code":"190"}}"#, true);
        check(&facebook, r#"{"error":{"code":4}}"#, false);
        check(&facebook, "190", false);
        let both = Sign { says: Some("expired".into()), ..facebook };
        check(&both, r#"{"error":{"code":190}}"#, false);
        check(&both, r#"{"error":{"code":190},"m":"has expired"}"#, true);
        let code = Sign { code: Some("token_expired".into()), ..Sign::default() };
        check(&code, r#"{"ok":false,"error":"Token_Expired"}"#, true);
        check(&code, r#"{"ok":true}"#, false);
        check(&Sign::default(), "{}", false);
    }

    #[test]
    fn the_definition_says_what_a_refusal_means() {
        let passing = Verdict::Transient { retry_after: None };
        for (status, body, expected, told) in [
            (200, r#"{"errcode":40030,"errmsg":"x"}"#, Verdict::GrantEnded, "40030"),
            (200, r#"{"errcode":"40030"}"#, Verdict::GrantEnded, "40030"),
            (200, r#"{"errcode":41002}"#, Verdict::Misconfigured, "41002"),
            (200, r#"{"errcode":77777}"#, passing, "an error of its own"),
            (400, r#"{"error":{"deep":{"code":"40030"}}}"#, Verdict::GrantEnded, "40030"),
            (400, r#"{"error":"unauthorized_client","error_description":"Access token not expired"}"#, passing, "unauthorized_client"),
            (400, r#"{"error":"interaction_required"}"#, passing, "interaction_required"),
            (401, "Invalid refresh token", Verdict::GrantEnded, "an error that its definition knows"),
            (400, "Invalid refresh token", passing, "neither JSON nor a form"),
            (401, r#"{"status":401,"message":"Invalid refresh token"}"#, Verdict::GrantEnded, "an error that its definition knows"),
            (200, r#"{"status":503,"body":{}}"#, Verdict::GrantEnded, "an error that its definition knows"),
            (500, r#"{"status":503,"errcode":40030}"#, passing, "an error of its own"),
            (500, r#"{"error":"gone"}"#, Verdict::GrantEnded, "gone"),
            (400, r#"{"error":"invalid_grant"}"#, Verdict::GrantEnded, "invalid_grant"),
            (400, r#"{"error":"CANARY"}"#, passing, "an error of its own"),
        ] {
            check(status, body, expected, told);
        }
    }

    #[test]
    fn a_code_of_nothing_is_no_error_and_an_empty_sign_fits_nothing() {
        for body in [r#"{"access_token":"A","errcode":0}"#, r#"{"access_token":"A","errcode":"0"}"#] {
            assert!(matches!(read(200, body.as_bytes(), &with_rules(), START), Reply::Granted(_)), "{body}");
        }
        assert!(!fits(&Sign::default(), 400, Some("x"), &Value::Null, b"x"));
    }
}
