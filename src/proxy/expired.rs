//! API answers that mean an expired token though they are no 401: read as far as it takes to know, and passed on whole when they are not.
//!
//! Only for providers with `expired_when`. What was read is handed on byte by byte before the rest, so that the client sees the answer as it
//! came. Deliberately absent: a look into bodies with a content coding, which pass unread.

use super::error::ProxyError;
use super::headers::is_json;
use crate::config::Timeouts;
use crate::oauth::is_sign_of;
use crate::provider::{Registration, Sign};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderMap};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
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
    Ok(is_sign_of(rules.into_iter(), status.as_u16(), &text, reg))
}

fn worth_reading(status: StatusCode, headers: &HeaderMap, body: &Incoming) -> bool {
    let coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let long = body.size_hint().lower() > READ_MAX as u64;
    !coded && !long && (!status.is_success() || is_json(headers))
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
