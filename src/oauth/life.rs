//! How long a token lives, as providers tell it: a number or a text, in this unit or that, from now or until a moment (Q38 to Q42).

use crate::base::clock::UnixMillis;
use crate::provider::Unit;
use serde_json::Value;

/// A century: longer lives are "never" in all but name, and sums with them stay in range.
pub(super) const EXPIRES_IN_S_MAX: u64 = 100 * 365 * 24 * 3600;

/// Seconds as a number or text, whole or not. Zero and less, and what cannot be read, is "not told" (Q38, Q39), never "already expired".
pub(super) fn seconds(value: &Value) -> Option<u64> {
    span(value, Unit::Seconds)
}

/// The same in another unit (Q41).
pub(super) fn span(value: &Value, unit: Unit) -> Option<u64> {
    let number = number(value)?
        * match unit {
            Unit::Seconds => 1.0,
            Unit::Milliseconds => 0.001,
            Unit::Minutes => 60.0,
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

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    }
}

/// The seconds until a moment: RFC 3339, or seconds or milliseconds since 1970 (Q42). One that has passed is a second away: the token is due.
pub(super) fn until(moment: &Value, now: UnixMillis) -> Option<u64> {
    let at = match number(moment) {
        // Seconds of the year 5138, milliseconds of 1973.
        Some(number) if number > 0.0 && number < 1e11 => number * 1000.0,
        Some(number) if number > 0.0 => number,
        Some(_) => return None,
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below the limit")]
        None => UnixMillis::from_rfc3339(moment.as_str()?.trim())?.0 as f64,
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below the limit")]
    let left = (at - now.0 as f64) / 1000.0;
    span(&left.max(1.0).into(), Unit::Seconds)
}
