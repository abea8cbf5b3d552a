//! `Retry-After`: seconds or a date (RFC 9110 §10.2.3).

use crate::base::clock::UnixMillis;
use std::time::{Duration, UNIX_EPOCH};

/// How long a server asks to be left alone; nothing where the text is neither. A date that is past is no time.
pub fn retry_after(text: &str, now: UnixMillis) -> Option<Duration> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let at_ms = i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(UnixMillis(at_ms).since(now))
}
