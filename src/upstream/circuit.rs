//! The circuit breaker of one upstream: after many failures in a row it is not asked for a while, then by one call at a time.
//!
//! Shared by all workers. While all is well a call reads two numbers that nobody writes, so no core waits for another. What counts as a failure is
//! the upstream as a whole being out of reach: no connection, or no HTTP on it. An answer of any status is
//! an answer, and one that is slow may be slow on that path alone.

use super::bounds::CircuitBounds;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;

/// What a refused call is told to wait while another's probe is on its way.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How long one probe is waited for before another may go.
const PROBE_FOR: Duration = Duration::from_secs(5);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Default)]
struct State {
    /// In a row.
    failures: AtomicU32,
    /// Milliseconds after `START`; 0 is closed.
    open_until: AtomicU64,
    /// How often it opened without a success in between.
    opened: AtomicU32,
    /// Until when, in the same milliseconds, a call that is on its way to see whether the upstream is back is waited for before another may go:
    /// a slow one must not keep everybody out. 0: there is none.
    probe_until: AtomicU64,
}

/// A circuit; clones are the same one.
#[derive(Clone, Default)]
pub struct Circuit(Arc<State>);

/// One call's way through. Dropped without a word, as when its client leaves, it says nothing of the upstream.
#[must_use]
pub struct Pass<'c> {
    circuit: &'c Circuit,
    bounds: CircuitBounds,
    is_probe: bool,
}

/// A circuit that opened, or stays open because its probe failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    pub lasts: Duration,
    pub is_first: bool,
}

impl Circuit {
    /// Lets a call through, or says after how long to try again.
    ///
    /// # Errors
    /// While it is open, and while another call is probing.
    pub fn enter(&self, bounds: CircuitBounds) -> Result<Pass<'_>, Duration> {
        let open_until = self.0.open_until.load(Ordering::Relaxed);
        let is_probe = match open_until {
            0 => false,
            until => match Duration::from_millis(until.saturating_sub(now_ms())) {
                Duration::ZERO if self.may_probe() => true,
                Duration::ZERO => return Err(PROBE_WAIT),
                left => return Err(left),
            },
        };
        Ok(Pass { circuit: self, bounds, is_probe })
    }

    fn may_probe(&self) -> bool {
        let (now, until) = (now_ms(), self.0.probe_until.load(Ordering::Acquire));
        let next = now.saturating_add(u64::try_from(PROBE_FOR.as_millis()).unwrap_or(u64::MAX));
        now >= until && self.0.probe_until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// `None` where another call opened it in this moment.
    fn open(&self, bounds: CircuitBounds, was_closed: bool) -> Option<Opened> {
        let opened = self.0.opened.load(Ordering::Acquire);
        let open = bounds.open.saturating_mul(1u32.checked_shl(opened).unwrap_or(u32::MAX)).min(bounds.open_max);
        let until = now_ms().saturating_add(u64::try_from(open.as_millis()).unwrap_or(u64::MAX)).max(1);
        if was_closed {
            self.0.open_until.compare_exchange(0, until, Ordering::AcqRel, Ordering::Acquire).ok()?;
        } else {
            self.0.open_until.store(until, Ordering::Release);
        }
        self.0.opened.fetch_add(1, Ordering::AcqRel);
        Some(Opened { lasts: open, is_first: was_closed })
    }
}

impl Pass<'_> {
    /// The upstream answered. Whether that closed the circuit.
    pub fn succeeded(self) -> bool {
        let state = &self.circuit.0;
        if state.failures.load(Ordering::Relaxed) != 0 {
            state.failures.store(0, Ordering::Relaxed);
        }
        if state.open_until.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // One that began before the circuit opened says as much as a probe.
        state.opened.store(0, Ordering::Relaxed);
        state.open_until.swap(0, Ordering::AcqRel) != 0
    }

    /// It did not. What that opened, if it did.
    pub fn failed(self) -> Option<Opened> {
        let state = &self.circuit.0;
        let failures = state.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let is_closed = state.open_until.load(Ordering::Acquire) == 0;
        let opens = if is_closed { failures >= self.bounds.failures } else { self.is_probe };
        if opens { self.circuit.open(self.bounds, is_closed) } else { None }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.circuit.0.probe_until.store(0, Ordering::Release);
        }
    }
}

/// Circuits are no part of what an origin is.
impl PartialEq for Circuit {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Circuit {}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Circuit")
    }
}

fn now_ms() -> u64 {
    u64::try_from(Instant::now().saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: CircuitBounds = CircuitBounds { failures: 3, open: Duration::from_secs(1), open_max: Duration::from_secs(3) };

    fn fail(circuit: &Circuit) -> Option<Duration> {
        circuit.enter(BOUNDS).unwrap_or_else(|_| panic!("let through")).failed().map(|opened| opened.lasts)
    }

    #[tokio::test(start_paused = true)]
    async fn opens_at_the_limit_and_for_longer_each_time() {
        let circuit = Circuit::default();
        assert_eq!((fail(&circuit), fail(&circuit)), (None, None));
        assert!(!circuit.enter(BOUNDS).unwrap_or_else(|_| panic!("closed")).succeeded());
        assert_eq!((fail(&circuit), fail(&circuit)), (None, None), "in a row alone");
        assert_eq!(fail(&circuit), Some(Duration::from_secs(1)));
        for (open, next) in [(1, 2), (2, 3), (3, 3)] {
            assert!(circuit.enter(BOUNDS).is_err());
            tokio::time::advance(Duration::from_millis(open * 1000 + 1)).await;
            let probe = circuit.enter(BOUNDS).unwrap_or_else(|_| panic!("a probe"));
            assert!(circuit.enter(BOUNDS).is_err(), "one at a time");
            assert_eq!(probe.failed(), Some(Opened { lasts: Duration::from_secs(next), is_first: false }));
        }
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(circuit.enter(BOUNDS).unwrap_or_else(|_| panic!("a probe")).succeeded());
        assert_eq!((fail(&circuit), fail(&circuit)), (None, None), "from the beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_makes_room_for_the_next() {
        let circuit = Circuit::default();
        assert_eq!([fail(&circuit), fail(&circuit), fail(&circuit)].map(|open| open.is_some()), [false, false, true]);
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(circuit.enter(BOUNDS));
        let slow = circuit.enter(BOUNDS);
        assert!(slow.is_ok() && circuit.enter(BOUNDS).is_err());
        tokio::time::advance(PROBE_FOR).await;
        assert!(circuit.enter(BOUNDS).is_ok(), "a slow probe keeps nobody out for long");
    }
}
