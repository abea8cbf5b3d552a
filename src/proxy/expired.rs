//! API answers that mean an expired token though they are no 401: read as far as it takes to know, and passed on whole when they are not.
//!
//! Only for providers with `expired_when`. What was read is handed on byte by byte before the rest, so that the client sees the answer as it
//! came. Deliberately absent: a look into bodies with a content coding, which pass unread.

use super::error::ProxyError;
use crate::config::Timeouts;
use crate::provider::{Path, Registration, Sign};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The most that is read of an answer before it is passed on: none that says so is longer.
const READ_MAX: usize = 64 << 10;
/// How long an answer of success is held back for its end: one that streams must not wait for us.
const SUCCESS_WITHIN: Duration = Duration::from_secs(2);

/// The frames that were read, in their order.
pub(super) type Held = VecDeque<Frame<Bytes>>;

/// Whether the answer means that its token has expired. `held` gets what was read of its body.
///
/// # Errors
/// When the answer breaks off: nothing of it went on yet.
pub(super) async fn judge(
    reg: &Registration,
    method: &Method,
    response: &mut Response<Incoming>,
    (timeouts, deadline): (&Timeouts, Option<Instant>),
    held: &mut Held,
) -> Result<bool, ProxyError> {
    let status = response.status();
    let could_fit = |rule: &&Sign| rule.status.is_none_or(|fitting| fitting == status.as_u16());
    let rules: Vec<&Sign> = reg.dialect.expired_when.iter().filter(could_fit).collect();
    if rules.is_empty() {
        return Ok(false);
    }
    if rules.iter().any(|rule| rule.status.is_some() && rule.code.is_none() && rule.member.is_none() && rule.says.is_none()) {
        return Ok(true);
    }
    if *method == Method::HEAD || !worth_reading(status, response.headers(), response.body()) {
        return Ok(false);
    }
    let patience = if status.is_success() { Some(SUCCESS_WITHIN) } else { timeouts.idle };
    let until = [patience.map(|patience| Instant::now() + patience), deadline].into_iter().flatten().min();
    let Some(text) = read(response.body_mut(), until, held).await? else { return Ok(false) };
    let json = serde_json::from_slice(&text).ok();
    Ok(rules.iter().any(|rule| fits(rule, &reg.dialect.errors.at, &text, json.as_ref())))
}

fn worth_reading(status: StatusCode, headers: &HeaderMap, body: &Incoming) -> bool {
    let coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let long = body.size_hint().lower() > READ_MAX as u64;
    !coded && !long && (!status.is_success() || is_json(headers))
}

/// `application/json` and its kin, whole documents all of them.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// Reads to the end; `None` where that is too far or too late.
async fn read(body: &mut Incoming, until: Option<Instant>, held: &mut Held) -> Result<Option<Vec<u8>>, ProxyError> {
    let mut text = Vec::new();
    loop {
        // Losing the frame is safe: hyper keeps what has not been taken.
        let frame = match until {
            Some(until) => match tokio::time::timeout_at(until, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Ok(None),
            },
            None => body.frame().await,
        };
        match frame {
            None => return Ok(Some(text)),
            Some(Err(error)) => return Err(ProxyError::UpstreamBadResponse(error.to_string())),
            Some(Ok(frame)) => {
                text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                held.push_back(frame);
                if text.len() > READ_MAX {
                    return Ok(None);
                }
            }
        }
    }
}

/// Whether all that the rule names is there; its status fits already.
fn fits(rule: &Sign, code_at: &[Path], text: &[u8], json: Option<&Value>) -> bool {
    let Sign { status: _, code, member, says } = rule;
    let code_fits = |code: &str| {
        let usual = json.and_then(|json| json.get("error")).and_then(as_text);
        let elsewhere = code_at.iter().filter_map(|path| as_text(path.get(json?)?));
        usual.into_iter().chain(elsewhere).any(|found| found.eq_ignore_ascii_case(code))
    };
    let member_fits = |(path, expected): &(Path, Box<str>)| {
        json.and_then(|json| path.get(json)).and_then(as_text).is_some_and(|found| found == **expected)
    };
    let says_it = |piece: &str| !piece.is_empty() && text.windows(piece.len()).any(|window| window == piece.as_bytes());
    let asks = code.is_some() || member.is_some() || says.is_some();
    asks && code.as_deref().is_none_or(code_fits) && member.as_ref().is_none_or(member_fits) && says.as_deref().is_none_or(says_it)
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &Sign, body: &str, expected: bool) {
        let at = [Path::parse("errors.0.errorType").expect("a path")];
        let json = serde_json::from_str(body).ok();
        assert_eq!(fits(rule, &at, body.as_bytes(), json.as_ref()), expected, "{rule:?} {body}");
    }

    #[test]
    fn all_that_a_rule_names_must_be_there() {
        let member = |path: &str, equals: &str| Some((Path::parse(path).expect("a path"), equals.into()));
        let facebook = Sign { member: member("error.code", "190"), ..Sign::default() };
        check(&facebook, r#"{"error":{"code":190,"error_subcode":463}}"#, true);
        check(&facebook, r#"{"error":{"code":"190"}}"#, true);
        check(&facebook, r#"{"error":{"code":4}}"#, false);
        check(&facebook, "190", false);
        let both = Sign { says: Some("expired".into()), ..facebook };
        check(&both, r#"{"error":{"code":190}}"#, false);
        check(&both, r#"{"error":{"code":190},"m":"has expired"}"#, true);
        let code = Sign { code: Some("token_expired".into()), ..Sign::default() };
        check(&code, r#"{"ok":false,"error":"Token_Expired"}"#, true);
        check(&code, r#"{"errors":[{"errorType":"token_expired"}]}"#, true);
        check(&code, r#"{"ok":true}"#, false);
        check(&Sign::default(), "{}", false);
    }
}
