//! The circuit of one provider registration's token endpoint: when refreshes fail across connections, no more are sent until one that is sent to
//! see whether it is back succeeds. Kept on the control plane; a call with a valid token never comes by here.
//!
//! What opens it is the endpoint as a whole being out: no answer, or 5xx, several times in a row and of more than one connection. What it says of
//! one grant, or of the registration, is an answer, and closes it. A `Retry-After` is honoured for the whole endpoint, though no longer than the
//! longest wait of the circuit's own, for it may have been meant for one end user.

use super::keeper::Keeper;
use crate::base::backoff::{backoff, spread};
use crate::base::ids::ConnectionKey;
use crate::notices::{Event, Fact};
use crate::oauth::{Health, TokenError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 5;

const OPEN_FIRST: Duration = Duration::from_secs(1);
const OPEN_MOST: Duration = Duration::from_secs(300);

/// What is told to those that come while a probe is on its way, spread by as much again.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How long a probe may hang before another goes: it may be its own connection that is at fault.
const PROBE_FOR: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row, of all connections.
    failures: u32,
    /// The connection of the first of them, and whether another's failed since.
    first: Option<ConnectionKey>,
    of_several: bool,
    /// No call goes before; `None` is closed.
    open_until: Option<Instant>,
    /// How often it opened without a success in between.
    opened: u32,
    /// When the newest probe went, while it is on its way.
    probe: Option<Instant>,
    /// How many answers came: a failure of a call that went out before the last of them says nothing new.
    answers: u64,
    /// It was told as an outage.
    is_told: bool,
}

/// The leave to send one call. Dropped without a word it says nothing of the endpoint.
#[must_use]
#[derive(Debug)]
pub(super) struct Pass<'o> {
    outage: &'o Outage,
    probe: Option<Instant>,
    /// The answers that had come when it went.
    answers: u64,
}

/// What is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    /// The endpoint is out.
    Out { failures: u32, lasts: Duration },
    /// It answers again.
    Back,
}

impl Outage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long no call goes; `None` where one may.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.state().wait(false)
    }

    /// Lets one call go, or says after how long to try again. `at_once`: an operator asks for it, and it may go as the probe before its time.
    ///
    /// # Errors
    /// While it is open, and while a probe is on its way.
    pub(super) fn enter(&self, at_once: bool) -> Result<Pass<'_>, Duration> {
        let mut state = self.state();
        if let Some(wait) = state.wait(at_once) {
            return Err(wait);
        }
        let probe = state.open_until.is_some().then(Instant::now);
        state.probe = probe.or(state.probe);
        Ok(Pass { outage: self, probe, answers: state.answers })
    }
}

impl State {
    fn wait(&self, at_once: bool) -> Option<Duration> {
        let left = self.open_until?.saturating_duration_since(Instant::now());
        if self.probe.is_some_and(|went| went.elapsed() < PROBE_FOR) {
            return Some(left.max(PROBE_WAIT + spread(PROBE_WAIT)));
        }
        // Spread, so that those that were told to wait do not come back in one moment.
        (!left.is_zero() && !at_once).then(|| left + spread(left / 10))
    }

    fn open(&mut self, told: Option<Duration>) -> Duration {
        self.opened = self.opened.saturating_add(1);
        let own = backoff(self.opened, OPEN_FIRST, OPEN_MOST);
        let lasts = told.map_or(own, |told| own.max(told.min(OPEN_MOST)));
        self.open_until = Some(Instant::now() + lasts);
        lasts
    }
}

impl Pass<'_> {
    /// What came of the call, of this connection. What is to be told of it, once.
    pub(super) fn ended(self, key: &ConnectionKey, failed: Option<&TokenError>) -> Option<Shift> {
        let mut state = self.outage.state();
        let retry_after = match failed.map_or(Health::Answered, |error| error.health) {
            Health::Out { .. } if self.answers != state.answers => return None,
            Health::Out { retry_after } => {
                state.failures = state.failures.saturating_add(1);
                match &state.first {
                    None => state.first = Some(key.clone()),
                    Some(first) => state.of_several |= first != key,
                }
                retry_after
            }
            // A limit is no outage: it is waited for, and told of each connection that it stops.
            Health::Limited { retry_after: Some(told) } => Some(told),
            Health::Limited { retry_after: None } | Health::Unknown => return None,
            Health::Answered => {
                let was_told = state.is_told;
                *state = State { answers: state.answers.wrapping_add(1), ..State::default() };
                return was_told.then_some(Shift::Back);
            }
        };
        let is_out = state.failures >= FAILURES && state.of_several;
        // Calls that were under way when it opened say nothing new; only the probe's failure keeps it open for longer.
        let opens = match state.open_until {
            None => is_out || retry_after.is_some(),
            Some(_) => self.probe.is_some() || (is_out && !state.is_told),
        };
        if !opens {
            return None;
        }
        let lasts = state.open(retry_after);
        if !is_out || state.is_told {
            return None;
        }
        state.is_told = true;
        Some(Shift::Out { failures: state.failures, lasts })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.outage.state();
        // One that hung for long has been followed by another, which is on its way still.
        if self.probe.is_some() && state.probe == self.probe {
            state.probe = None;
        }
    }
}

impl Keeper {
    /// In the log, and to those who want notices of it. On a task of its own, for a rotated grant may be waiting to be written.
    pub(super) fn tell_shift(self: &Arc<Self>, provider: &Arc<str>, shift: Shift) {
        let (event, detail) = match shift {
            Shift::Out { failures, lasts } => {
                let wait_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(event = "provider.outage", provider.id = %provider, refresh.failures = failures, wait_ms, "the token endpoint is out: refreshes wait until one that is tried succeeds");
                (Event::ProviderOutage, format!("the last {failures} token calls, of several connections, found no endpoint that works"))
            }
            Shift::Back => {
                tracing::info!(event = "provider.recovered", provider.id = %provider, "the token endpoint answers again");
                (Event::ProviderRecovered, "the token endpoint answers again".to_owned())
            }
        };
        let letters = self.desk.letters(event, &Fact::Provider { id: provider, detail: &detail });
        if letters.is_empty() {
            return;
        }
        let records = self.records.clone();
        self.control().spawn(async move {
            if let Err(error) = records.put_notices(&letters).await {
                tracing::warn!(error = %error, notice.event = event.name(), "a notice could not be put into the outbox");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Health = Health::Out { retry_after: None };

    fn key(user: &str) -> ConnectionKey {
        ConnectionKey::new("acme", user, "default")
    }

    fn end(outage: &Outage, user: &str, health: Health) -> Option<Shift> {
        outage.enter(true).expect("a pass").ended(&key(user), Some(&TokenError::of_health(health)))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_five_failures_in_a_row_of_two_connections() {
        let outage = Outage::default();
        for _ in 0..20 {
            assert_eq!(end(&outage, "megan", OUT), None, "one connection alone may be at fault itself");
        }
        let Some(Shift::Out { failures: 21, lasts }) = end(&outage, "adam", OUT) else { panic!("not open") };
        assert!(lasts <= OPEN_FIRST, "{lasts:?}");
        assert!(outage.wait().is_some_and(|wait| wait <= secs(2)));
        assert!(outage.enter(false).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_of_one_grant_never_opens_it() {
        let outage = Outage::default();
        for round in 0..50 {
            for health in [OUT, OUT, Health::Answered, OUT, Health::Unknown, Health::Limited { retry_after: None }] {
                assert_eq!(end(&outage, if round % 2 == 0 { "megan" } else { "adam" }, health), None);
            }
        }
        assert_eq!(outage.wait(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_and_longer_waits_up_to_five_minutes() {
        let outage = Outage::default();
        for user in ["a", "b", "c", "d", "e"] {
            let _ = end(&outage, user, OUT);
        }
        for nth in 1..20 {
            let left = outage.state().open_until.expect("open") - Instant::now();
            assert!(left <= OPEN_MOST && left >= OPEN_FIRST / 2, "{nth}: {left:?}");
            tokio::time::advance(left).await;
            let probe = outage.enter(false).expect("half open");
            assert!(outage.enter(false).is_err() && outage.enter(true).is_err(), "one at a time");
            assert_eq!(probe.ended(&key("a"), Some(&TokenError::of_health(OUT))), None, "told once");
        }
        assert!(outage.state().open_until.expect("open") - Instant::now() >= OPEN_MOST / 2);
        // An operator's may go before its time; and one that is dropped lets the next go.
        drop(outage.enter(true).expect("a pass"));
        assert_eq!(outage.enter(true).expect("a pass").ended(&key("a"), None), Some(Shift::Back));
        assert_eq!(outage.wait(), None);
        assert_eq!(end(&outage, "a", OUT), None, "counted from the start again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_keeps_nobody_for_long() {
        let outage = Outage::default();
        for user in ["a", "b", "c", "d", "e"] {
            let _ = end(&outage, user, OUT);
        }
        let hanging = outage.enter(true).expect("a probe");
        assert!(outage.enter(true).is_err());
        tokio::time::advance(PROBE_FOR).await;
        let next = outage.enter(false).expect("another probe");
        // The end of the first is not the end of the second.
        drop(hanging);
        assert!(outage.enter(true).is_err());
        assert_eq!(next.ended(&key("b"), None), Some(Shift::Back));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_older_than_the_last_answer_open_nothing() {
        let outage = Outage::default();
        let hanging: Vec<_> = (0..20).map(|_| outage.enter(false).expect("a pass")).collect();
        assert_eq!(end(&outage, "megan", Health::Answered), None);
        for (number, pass) in hanging.into_iter().enumerate() {
            assert_eq!(pass.ended(&key(&number.to_string()), Some(&TokenError::of_health(OUT))), None);
        }
        assert_eq!(outage.wait(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_told_wait_holds_for_all_but_not_for_ever() {
        for (health, least, most) in [
            (Health::Limited { retry_after: Some(secs(60)) }, 60, 66),
            (Health::Out { retry_after: Some(secs(60)) }, 60, 66),
            (Health::Limited { retry_after: Some(secs(86_400)) }, 300, 330),
        ] {
            let outage = Outage::default();
            assert_eq!(end(&outage, "megan", health), None, "no outage yet");
            let wait = outage.enter(false).expect_err("waits");
            assert!((secs(least)..=secs(most)).contains(&wait), "{wait:?}");
        }
    }
}
