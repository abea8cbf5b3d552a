//! `retry:` of a route: whether a call that failed is made once more, and after how long a wait.
//!
//! Only what can be sent again without doing a thing twice: idempotent calls (RFC 9110 §9.2.2) and those that say they are by an
//! `Idempotency-Key`, and any call of which nothing was done: no connection came about, or the upstream turned it away by 429. The body's part
//! is the caller's to have: all of it, or none of it sent.

use super::forward::Failed;
use super::send;
use crate::base::backoff::spread;
use crate::base::clock::UnixMillis;
use crate::base::retry_after::retry_after;
use crate::config::{Retry, Route};
use crate::upstream::{ConnectFault, SendFault};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use http::request::Parts;
use std::time::Duration;
use tokio::time::Instant;

/// The first wait's ceiling, doubled each time.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest `Retry-After` that a call is held for; an answer that asks for more is the client's to see.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is left of one call's attempts.
pub(super) struct Retries<'r> {
    rules: Option<&'r Retry>,
    done: u32,
    is_idempotent: bool,
    deadline: Option<Instant>,
}

impl<'r> Retries<'r> {
    pub(super) fn of(route: &'r Route, head: &Parts, deadline: Option<Instant>) -> Self {
        let rules = route.retry.as_deref();
        // By what goes upstream: a route's `send` may make another method of it, and `headers` may take the key away.
        let is_idempotent = rules.is_some() && {
            let keyed = head.headers.contains_key(&IDEMPOTENCY_KEY) && !route.headers.remove.contains(&IDEMPOTENCY_KEY);
            keyed || send::method(&head.method, route.special.as_deref()).is_idempotent()
        };
        Retries { rules, done: 0, is_idempotent, deadline }
    }

    /// How long to wait before the call is made again, if an answer of this status and these headers is worth it.
    pub(super) fn after_answer(&mut self, status: StatusCode, headers: &HeaderMap, now: impl FnOnce() -> UnixMillis) -> Option<Duration> {
        let rules = self.rules.filter(|rules| rules.statuses.contains(&status))?;
        if !self.is_idempotent && status != StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        match headers.get(RETRY_AFTER) {
            None => self.next(rules, None),
            Some(told) => {
                let told = retry_after(told.to_str().ok()?, now()).filter(|told| *told <= RETRY_AFTER_MAX)?;
                self.next(rules, Some(told))
            }
        }
    }

    /// The same of a call that brought no answer.
    pub(super) fn after_failure(&mut self, failed: &Failed) -> Option<Duration> {
        let rules = self.rules?;
        let wanted = match failed {
            // Where no address may be dialled none may be later.
            Failed::Send(SendFault::Connect(error)) => rules.connect && error.fault != ConnectFault::OutOfReach,
            Failed::Send(SendFault::Refused) => rules.reset,
            Failed::Send(SendFault::Stale) => rules.reset && self.is_idempotent,
            Failed::Send(SendFault::Broken(error)) => rules.reset && self.is_idempotent && !error.is_user(),
            Failed::Silent => rules.timeout && self.is_idempotent,
            Failed::Send(SendFault::Busy) | Failed::Open(_) => false,
        };
        if wanted { self.next(rules, None) } else { None }
    }

    fn next(&mut self, rules: &Retry, told: Option<Duration>) -> Option<Duration> {
        if self.done >= rules.attempts {
            return None;
        }
        let ceiling = WAIT_FIRST.saturating_mul(1u32.checked_shl(self.done).unwrap_or(u32::MAX)).min(WAIT_MAX);
        // All of the ceiling is spread over, so that calls that failed together part (full jitter).
        let wait = told.unwrap_or_default().max(spread(ceiling));
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now() + wait) {
            return None;
        }
        self.done += 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method, Request};

    fn rules() -> Retry {
        Retry {
            attempts: 2,
            statuses: [429, 503].iter().filter_map(|code| StatusCode::from_u16(*code).ok()).collect(),
            connect: true,
            reset: false,
            timeout: false,
        }
    }

    fn retries(rules: &Retry, is_idempotent: bool, deadline: Option<Instant>) -> Retries<'_> {
        Retries { rules: Some(rules), done: 0, is_idempotent, deadline }
    }

    fn after(method: Method, key: bool, status: u16, told: Option<&'static str>) -> Option<Duration> {
        let (head, ()) = Request::builder().method(method).body(()).expect("valid").into_parts();
        let mut headers = HeaderMap::new();
        headers.extend(told.map(|told| (RETRY_AFTER, HeaderValue::from_static(told))));
        // 1994-11-15T08:12:31Z
        let now = || UnixMillis(784_887_151_000);
        retries(&rules(), head.method.is_idempotent() || key, None).after_answer(
            StatusCode::from_u16(status).expect("valid"),
            &headers,
            now,
        )
    }

    #[test]
    fn what_may_be_done_twice_and_what_was_not_done_is_sent_again() {
        assert!(after(Method::GET, false, 503, None).is_some());
        assert!(after(Method::PUT, false, 503, None).is_some());
        assert!(after(Method::POST, false, 503, None).is_none());
        assert!(after(Method::POST, true, 503, None).is_some());
        assert!(after(Method::POST, false, 429, None).is_some());
        assert!(after(Method::GET, false, 500, None).is_none());
    }

    #[test]
    fn the_upstreams_word_on_the_wait_holds_up_to_a_limit() {
        assert_eq!(after(Method::GET, false, 503, Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(after(Method::GET, false, 503, Some("Tue, 15 Nov 1994 08:12:41 GMT")), Some(Duration::from_secs(10)));
        let past = after(Method::GET, false, 503, Some("Tue, 15 Nov 1994 08:12:21 GMT"));
        assert!(past.is_some_and(|wait| wait <= WAIT_FIRST));
        for too_long_or_none in ["31", "Tue, 15 Nov 1994 08:13:31 GMT", "soon", "-1", "+5", ""] {
            assert_eq!(after(Method::GET, false, 503, Some(too_long_or_none)), None, "{too_long_or_none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_and_the_calls_own_end_are_the_limit() {
        let rules = rules();
        let again = |retries: &mut Retries<'_>| retries.after_answer(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), || UnixMillis(0));
        let mut retries = self::retries(&rules, true, None);
        assert!(again(&mut retries).is_some_and(|wait| wait <= WAIT_FIRST));
        assert!(again(&mut retries).is_some_and(|wait| wait <= WAIT_FIRST * 2));
        assert!(again(&mut retries).is_none());
        let mut late = self::retries(&rules, true, Some(Instant::now()));
        assert!(again(&mut late).is_none());
    }
}
