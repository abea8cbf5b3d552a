//! Floor 1: how many calls a route takes, of one end user and in all. Counted over all workers exactly, in memory that is bounded.
//!
//! The counting itself (GCRA, a leaky bucket) is the `governor` crate's. Deliberately absent: counts that outlive the process or are shared by
//! several of them.

mod buckets;

use crate::base::clock::Clock;
use buckets::{Buckets, Ticks};
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::{Quota, RateLimiter};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The longest span that a rate may be told over.
pub const SPAN_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most calls of a rate, and at once.
pub const CALLS_MAX: u32 = 1_000_000;

/// So many calls in a while, and so many at once. As calls are spent they come back one by one, evenly over the while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub calls: NonZeroU32,
    /// From 1 s to [`SPAN_MAX`].
    pub per: Duration,
    /// How many may come at once, from a full bucket.
    pub burst: NonZeroU32,
}

/// Why a text is no rate. Its words complete "expected …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRate(&'static str);

impl Rate {
    /// # Errors
    /// When a part is out of its bounds.
    pub fn new(calls: u64, per: Duration, burst: Option<u64>) -> Result<Rate, BadRate> {
        let count = |count: u64| u32::try_from(count).ok().filter(|count| *count <= CALLS_MAX).and_then(NonZeroU32::new);
        let calls = count(calls).ok_or(BadRate("from 1 to 1000000 calls"))?;
        if !(SECOND..=SPAN_MAX).contains(&per) || per.subsec_nanos() != 0 {
            return Err(BadRate("whole seconds, from `1s` to `1d`"));
        }
        let burst = match burst {
            None => calls,
            Some(burst) => count(burst).ok_or(BadRate("a burst of 1 to 1000000 calls"))?,
        };
        Ok(Rate { calls, per, burst })
    }

    /// `10/s`, `100/m`, `1000/h`, `5000/d`, or with a number in the span: `50/30s`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Rate, BadRate> {
        const FORM: BadRate = BadRate("calls and a span, such as `10/s`, `100/m`, `1000/h` or `50/30s`");
        let (calls, span) = text.split_once('/').ok_or(FORM)?;
        let calls = calls.trim().parse().map_err(|_| FORM)?;
        let span = span.trim();
        let per = match span {
            "s" => SECOND,
            "m" | "min" => 60 * SECOND,
            "h" => 3600 * SECOND,
            "d" => SPAN_MAX,
            _ if span.starts_with(|first: char| first.is_ascii_digit()) => humantime::parse_duration(span).map_err(|_| FORM)?,
            _ => return Err(FORM),
        };
        Rate::new(calls, per, None)
    }

    fn quota(self) -> Option<Quota> {
        // At least a microsecond: a million calls a second.
        Quota::with_period(self.per / self.calls.get()).map(|quota| quota.allow_burst(self.burst))
    }
}

/// `rate_limit` of a route.
#[derive(Debug, Default)]
pub struct Limits {
    pub user: Option<Limit>,
    pub route: Option<Limit>,
}

/// One rate with what was counted against it.
pub struct Limit {
    pub rate: Rate,
    /// Begun by the first call, which brings the clock.
    counts: OnceLock<Arc<Counts>>,
}

/// Names are counted by a keyed hash of 64 bits, which nobody outside can make two collide under.
struct Counts {
    limiter: RateLimiter<u64, Buckets, Ticks, NoOpMiddleware<Duration>>,
    hasher: RandomState,
}

/// Whose call it is to the limit of each end user.
#[derive(Debug, Clone, Copy, Hash)]
pub enum Counted<'c> {
    EndUser(&'c str),
    /// On routes that know no end user: the client app.
    Caller(&'c str),
    /// All together, where nothing tells them apart.
    Anyone,
}

/// A call that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// `user` or `route`.
    pub scope: &'static str,
    pub rate: Rate,
    /// After how long the next call would be taken.
    pub wait: Duration,
}

impl Refused {
    /// `wait` in whole seconds, rounded up, at least 1: what `Retry-After` says.
    pub fn wait_s(&self) -> u64 {
        (self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)).max(1)
    }
}

impl Limits {
    /// Counts a call. One that its end user's limit refuses does not count against the route's.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn admit(&self, counted: Counted<'_>, clock: &Arc<dyn Clock>) -> Result<(), Refused> {
        let refused = |scope, limit: &Limit, wait| Refused { scope, rate: limit.rate, wait };
        if let Some(user) = &self.user {
            user.admit(counted, clock).map_err(|wait| refused("user", user, wait))?;
        }
        match &self.route {
            Some(route) => route.admit(Counted::Anyone, clock).map_err(|wait| refused("route", route, wait)),
            None => Ok(()),
        }
    }

    /// Takes over what the same route's limits counted before a reload, where their rates are the same.
    pub fn adopt(&self, before: &Limits) {
        for (own, before) in [(&self.user, &before.user), (&self.route, &before.route)] {
            if let (Some(own), Some(before)) = (own, before)
                && own.rate == before.rate
                && let Some(counts) = before.counts.get()
            {
                // A second word would be the same one's.
                let _ = own.counts.set(Arc::clone(counts));
            }
        }
    }

    /// Gives back the memory of those who have all their calls again.
    pub fn sweep(&self) {
        for limit in [&self.user, &self.route].into_iter().flatten() {
            if let Some(counts) = limit.counts.get() {
                counts.limiter.retain_recent();
            }
        }
    }
}

impl Limit {
    pub fn new(rate: Rate) -> Limit {
        Limit { rate, counts: OnceLock::new() }
    }

    fn admit(&self, counted: Counted<'_>, clock: &Arc<dyn Clock>) -> Result<(), Duration> {
        let counts = match self.counts.get() {
            Some(counts) => counts,
            None => {
                // A rate of which no quota can be made was refused when it was read.
                let Some(quota) = self.rate.quota() else { return Ok(()) };
                self.counts.get_or_init(|| Arc::new(Counts::new(quota, clock)))
            }
        };
        let key = counts.hasher.hash_one(counted);
        counts.limiter.check_key(&key).map_err(|refused| refused.wait_time_from(counts.limiter.clock().now()))
    }
}

impl Counts {
    fn new(quota: Quota, clock: &Arc<dyn Clock>) -> Counts {
        let ticks = Ticks::new(Arc::clone(clock));
        Counts { limiter: RateLimiter::new(quota, Buckets::new(ticks.clone()), ticks), hasher: RandomState::new() }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit({:?})", self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, UnixMillis};

    fn clock() -> (ManualClock, Arc<dyn Clock>) {
        let manual = ManualClock::at(UnixMillis(1_767_225_600_000));
        (manual.clone(), Arc::new(manual))
    }

    fn limit(text: &str) -> Limit {
        Limit::new(Rate::parse(text).expect(text))
    }

    #[test]
    fn reads_rates() {
        for (text, expected) in [
            ("10/s", Some((10, 1))),
            ("100/m", Some((100, 60))),
            ("100 / min", Some((100, 60))),
            ("1000/h", Some((1000, 3600))),
            ("5000/d", Some((5000, 86_400))),
            ("50/30s", Some((50, 30))),
            ("50/1m30s", Some((50, 90))),
            ("1000000/1s", Some((1_000_000, 1))),
            ("1000001/s", None),
            ("0/s", None),
            ("-1/s", None),
            ("10", None),
            ("10/", None),
            ("10/w", None),
            ("10/500ms", None),
            ("10/1500ms", None),
            ("10/2d", None),
            ("/s", None),
            ("1.5/s", None),
            ("10/s/s", None),
            ("", None),
        ] {
            let found = Rate::parse(text).ok().map(|rate| (rate.calls.get(), rate.per.as_secs()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_full_bucket_comes_at_once_and_then_one_by_one() {
        let (manual, clock) = clock();
        let limits = Limits { user: Some(Limit::new(Rate::new(60, 60 * SECOND, Some(3)).expect("a rate"))), route: None };
        let admit = |name| limits.admit(Counted::EndUser(name), &clock);
        for _ in 0..3 {
            assert!(admit("megan").is_ok());
        }
        let refused = admit("megan").expect_err("one too many");
        assert_eq!((refused.scope, refused.wait, refused.wait_s()), ("user", SECOND, 1));
        assert!(admit("alex").is_ok(), "another's calls are not hers");
        manual.advance(Duration::from_millis(300));
        assert_eq!(admit("megan").expect_err("too soon").wait, Duration::from_millis(700));
        manual.advance(Duration::from_millis(700));
        assert!(admit("megan").is_ok() && admit("megan").is_err());
        manual.advance(3600 * SECOND);
        assert_eq!((0..10).filter(|_| admit("megan").is_ok()).count(), 3, "no more than the bucket holds");
    }

    #[test]
    fn what_one_users_limit_refuses_does_not_count_for_all() {
        let (_, clock) = clock();
        let limits = Limits { user: Some(limit("2/h")), route: Some(limit("3/h")) };
        let admit = |name| limits.admit(Counted::EndUser(name), &clock).map_err(|refused| refused.scope);
        assert_eq!([admit("a"), admit("a"), admit("a"), admit("a")], [Ok(()), Ok(()), Err("user"), Err("user")]);
        assert_eq!([admit("b"), admit("b")], [Ok(()), Err("route")]);
        assert_ne!(
            limits.user.as_ref().map(|limit| limit.admit(Counted::Caller("b"), &clock)),
            Some(Err(SECOND)),
            "a caller is no end user"
        );
    }

    #[test]
    fn counts_outlive_a_reload_that_leaves_the_rate_alone() {
        let (_, clock) = clock();
        let before = Limits { user: Some(limit("1/h")), route: Some(limit("1/h")) };
        assert!(before.admit(Counted::Anyone, &clock).is_ok());
        let same = Limits { user: Some(limit("1/h")), route: None };
        same.adopt(&before);
        assert!(same.admit(Counted::Anyone, &clock).is_err());
        let other = Limits { user: Some(limit("2/h")), route: None };
        other.adopt(&before);
        assert!(other.admit(Counted::Anyone, &clock).is_ok());
    }

    /// Without the lock around a bucket two threads would both take its last call.
    #[test]
    fn threads_count_together_exactly() {
        let (_, clock) = clock();
        let limits = Limits { user: Some(limit("1000/h")), route: None };
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| limits.admit(Counted::EndUser("megan"), &clock).is_ok()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("counted")).sum()
        });
        assert_eq!(taken, 1000);
    }
}
