//! When a token is fresh, near its end or past it. Pure: both clocks are handed in.
//!
//! A token ends when the wall clock *or* the monotonic clock says so. The wall clock alone would serve expired tokens after it was set back;
//! the monotonic one alone stands still while a machine sleeps, and knows nothing of the time before a restart.

use crate::base::backoff::spread;
use crate::base::clock::UnixMillis;
use crate::provider::{RefreshPolicy, Registration, RenewBy};
use crate::store::Connection;
use std::time::Duration;
use tokio::time::Instant;

const MARGIN_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Fresh,
    /// Good, and due for a refresh.
    Near,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    wall: UnixMillis,
    steady: Instant,
}

impl Moment {
    fn reached(&self, now: UnixMillis, steady: Instant) -> bool {
        now >= self.wall || steady >= self.steady
    }
}

/// The two moments of a token's life, precomputed for the hot path. `None`: it does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule(Option<(Moment, Moment)>);

impl Schedule {
    /// `renewable`: whether there is a refresh token; without one a token is never near its end, just past it.
    pub(super) fn of(
        obtained_at: UnixMillis,
        expires_at: Option<UnixMillis>,
        renewable: bool,
        policy: &RefreshPolicy,
        now: UnixMillis,
        steady: Instant,
    ) -> Self {
        let Some(expires_at) = expires_at else { return Schedule(None) };
        let life = expires_at.since(obtained_at);
        // Never more than its whole life is left, though the clock was set back since it came.
        let left = expires_at.since(now).min(life);
        let margin = if renewable { margin(life, policy) } else { Duration::ZERO };
        // Earlier by up to a tenth, so that connections that were made together are not refreshed together.
        let margin = margin + spread(margin / 10);
        let near = Moment { wall: expires_at.minus(margin), steady: steady + left.saturating_sub(margin) };
        Schedule(Some((near, Moment { wall: expires_at, steady: steady + left })))
    }

    pub(super) fn at(&self, now: UnixMillis, steady: Instant) -> Phase {
        match &self.0 {
            None => Phase::Fresh,
            Some((_, end)) if end.reached(now, steady) => Phase::Expired,
            Some((near, _)) if near.reached(now, steady) => Phase::Near,
            Some(_) => Phase::Fresh,
        }
    }
}

/// When tokens of such a life are refreshed. A provider that refuses early refreshes (Q48) is not asked early; where the access token itself
/// renews, an expired one cannot, so that it is renewed a fifth of its life before its end though that be days (Q49).
pub(super) fn policy(reg: &Registration, life: Duration) -> RefreshPolicy {
    let mut policy = reg.refresh;
    if reg.dialect.renewal.by == RenewBy::AccessToken {
        policy.margin = policy.margin.or(Some(life / 5));
    }
    if let Some(least) = reg.dialect.renewal.not_before {
        // Less than what is left then, for the margin is spread upwards.
        let left = life.saturating_sub(least) * 9 / 10;
        policy.margin = Some(margin(life, &policy).min(left));
    }
    policy
}

/// When the record's token comes near its end, earlier by up to a tenth of the margin; `None` if it does not end.
pub(super) fn near(reg: &Registration, record: &Connection) -> Option<UnixMillis> {
    let end = record.expires_at?;
    let life = end.since(record.obtained_at);
    let margin = margin(life, &policy(reg, life));
    Some(end.minus(margin + spread(margin / 10)))
}

/// The smaller of 5 min and a fifth of the token's life, or what the policy says, but never over half its life: a margin as long as the life
/// would refresh at each call.
fn margin(life: Duration, policy: &RefreshPolicy) -> Duration {
    policy.margin.unwrap_or(MARGIN_MAX.min(life / 5)).min(life / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMillis = UnixMillis(1_767_225_600_000);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn margin_follows_life_and_policy() {
        for (life, policy, expected) in [
            (3600, None, 300),
            (300, None, 60),
            (5, None, 1),
            (3600, Some(60), 60),
            (60, Some(300), 30),
            (86_400 * 60, Some(86_400), 86_400),
        ] {
            let policy = RefreshPolicy { margin: policy.map(secs), ..RefreshPolicy::default() };
            assert_eq!(margin(secs(life), &policy), secs(expected), "{life}");
        }
    }

    fn hour(renewable: bool) -> (Schedule, Instant) {
        let steady = Instant::now();
        (Schedule::of(AT, Some(AT.plus(secs(3600))), renewable, &RefreshPolicy::default(), AT, steady), steady)
    }

    #[test]
    fn phases_by_the_wall_clock() {
        let (schedule, steady) = hour(true);
        for (after, expected) in [
            (0, Phase::Fresh),
            (3269, Phase::Fresh),
            (3300, Phase::Near),
            (3599, Phase::Near),
            (3600, Phase::Expired),
            (9999, Phase::Expired),
        ] {
            assert_eq!(schedule.at(AT.plus(secs(after)), steady), expected, "{after}");
        }
    }

    #[test]
    fn phases_by_the_steady_clock_when_the_wall_clock_was_set_back() {
        let (schedule, steady) = hour(true);
        for (after, expected) in [(0, Phase::Fresh), (3269, Phase::Fresh), (3301, Phase::Near), (3600, Phase::Expired)] {
            assert_eq!(schedule.at(AT.minus(secs(3600)), steady + secs(after)), expected, "{after}");
        }
    }

    #[test]
    fn a_clock_set_back_before_a_restart_lends_no_life() {
        let steady = Instant::now();
        let schedule = Schedule::of(AT, Some(AT.plus(secs(3600))), true, &RefreshPolicy::default(), AT.minus(secs(7200)), steady);
        assert_eq!(schedule.at(AT.minus(secs(7200)), steady), Phase::Fresh);
        assert_eq!(schedule.at(AT.minus(secs(3600)), steady + secs(3600)), Phase::Expired);
    }

    #[test]
    fn without_a_refresh_token_it_is_never_near() {
        let (schedule, steady) = hour(false);
        assert_eq!(schedule.at(AT.plus(secs(3599)), steady), Phase::Fresh);
        assert_eq!(schedule.at(AT.plus(secs(3600)), steady), Phase::Expired);
    }

    #[test]
    fn a_token_that_does_not_expire_is_fresh_for_good() {
        let schedule = Schedule::of(AT, None, true, &RefreshPolicy::default(), AT, Instant::now());
        assert_eq!(schedule.at(UnixMillis(i64::MAX), Instant::now()), Phase::Fresh);
    }

    #[test]
    fn ends_before_it_began_is_expired_and_no_panic() {
        let steady = Instant::now();
        for expires in [AT.minus(secs(10)), UnixMillis(i64::MIN), AT] {
            let schedule = Schedule::of(AT, Some(expires), true, &RefreshPolicy::default(), AT, steady);
            assert_eq!(schedule.at(AT, steady), Phase::Expired);
        }
        let far = Schedule::of(AT, Some(UnixMillis(i64::MAX)), true, &RefreshPolicy::default(), AT, steady);
        assert_eq!(far.at(AT, steady), Phase::Fresh);
    }
}
