//! The last calls, kept in memory for people to look at: some hundreds that went well, and as many that did not.
//!
//! Of a busy worker the first calls of each second are kept and the others left out: nobody reads more, and the hot path pays for a comparison.

use crate::base::clock::{Clock, SystemClock, UnixMillis};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// How many of each kind are kept.
const KEPT: usize = 500;
/// How many of each kind one worker hands over in a second.
const PER_SECOND: u32 = 50;
/// How many a follower may be behind.
const BEHIND_MAX: usize = 256;

/// One call, as it ended. Never a query string, an end user's name, nor a token.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Counts up over the life of the process.
    pub number: u64,
    pub at: UnixMillis,
    pub request_id: Box<str>,
    /// `""` where no route took it.
    pub route: Box<str>,
    pub provider: Box<str>,
    /// Whose token went on, by the connection's id.
    pub connection_id: Option<Arc<str>>,
    pub method: Box<str>,
    pub status: u16,
    pub bytes: u64,
    pub took: Duration,
    pub upstream: Option<Duration>,
    pub waited_for_token: bool,
    pub replays: u32,
    pub cut: bool,
    /// The name of Attaché's own error.
    pub error: Option<&'static str>,
}

impl Seen {
    pub fn went_well(&self) -> bool {
        went_well(self.status, self.cut, self.error)
    }
}

/// Whether a call's end is nobody's trouble.
pub fn went_well(status: u16, cut: bool, error: Option<&'static str>) -> bool {
    status < 400 && !cut && error.is_none()
}

#[derive(Debug, Default)]
struct Rings {
    last: u64,
    good: VecDeque<Arc<Seen>>,
    bad: VecDeque<Arc<Seen>>,
}

/// The rings of one process, and who follows them.
#[derive(Debug)]
pub struct Recent {
    rings: Mutex<Rings>,
    live: broadcast::Sender<Arc<Seen>>,
    left_out: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Recent { rings: Mutex::default(), live: broadcast::Sender::new(BEHIND_MAX), left_out: AtomicU64::new(0) }
    }
}

impl Recent {
    /// Keeps a call; its `number` and `at` are given here.
    pub(super) fn keep(&self, mut seen: Seen) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.last += 1;
        (seen.number, seen.at) = (rings.last, SystemClock.now());
        let seen = Arc::new(seen);
        let ring = if seen.went_well() { &mut rings.good } else { &mut rings.bad };
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&seen));
        // Under the lock, so that followers get them in their order. It fails where nobody follows.
        let _ = self.live.send(seen);
    }

    pub(super) fn leave_out(&self, count: u64) {
        self.left_out.fetch_add(count, Relaxed);
    }

    /// How many calls were too many to be kept.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    /// What is kept of calls after `number`, oldest first; `only_bad`: those alone that did not go well.
    pub fn since(&self, number: u64, only_bad: bool) -> Vec<Arc<Seen>> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let good = rings.good.iter().filter(|_| !only_bad);
        let mut all: Vec<Arc<Seen>> = good.chain(&rings.bad).filter(|seen| seen.number > number).cloned().collect();
        drop(rings);
        all.sort_unstable_by_key(|seen| seen.number);
        all
    }

    /// What comes from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Seen>> {
        self.live.subscribe()
    }
}

/// What one worker has handed over in this second.
#[derive(Debug, Default)]
pub(super) struct Window {
    began: Cell<Option<Instant>>,
    good: Cell<u32>,
    bad: Cell<u32>,
}

impl Window {
    /// Whether one more may be handed over.
    pub(super) fn admits(&self, went_well: bool, now: Instant, recent: &Recent) -> bool {
        if self.began.get().is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            let over = |count: &Cell<u32>| u64::from(count.take().saturating_sub(PER_SECOND));
            let left_out = over(&self.good) + over(&self.bad);
            if left_out > 0 {
                recent.leave_out(left_out);
            }
            self.began.set(Some(now));
        }
        let count = if went_well { &self.good } else { &self.bad };
        count.set(count.get().saturating_add(1));
        count.get() <= PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: u16) -> Seen {
        Seen {
            number: 0,
            at: UnixMillis(0),
            request_id: "r".into(),
            route: "a".into(),
            provider: "b".into(),
            connection_id: None,
            method: "GET".into(),
            status,
            bytes: 0,
            took: Duration::ZERO,
            upstream: None,
            waited_for_token: false,
            replays: 0,
            cut: false,
            error: None,
        }
    }

    #[test]
    fn many_good_calls_push_no_error_out() {
        let recent = Recent::default();
        recent.keep(seen(502));
        for _ in 0..2 * KEPT {
            recent.keep(seen(200));
        }
        assert_eq!(recent.since(0, true).len(), 1);
        let all = recent.since(0, false);
        assert_eq!((all.len(), all[0].number, all[0].status, all[KEPT].number), (KEPT + 1, 1, 502, 2 * KEPT as u64 + 1));
        assert_eq!(recent.since(2 * KEPT as u64, false).len(), 1, "what came after");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_workers_calls_are_left_out_and_counted() {
        let (recent, window) = (Recent::default(), Window::default());
        let admitted = |window: &Window| (0..1000).filter(|_| window.admits(true, Instant::now(), &recent)).count();
        assert_eq!(admitted(&window), PER_SECOND as usize);
        assert!(window.admits(false, Instant::now(), &recent), "errors have a share of their own");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((admitted(&window), recent.left_out()), (PER_SECOND as usize, 950));
    }
}
