//! Where the buckets of a limit are kept: in shards, each behind a short lock, and never more than a fixed number.

use crate::base::clock::Clock;
use governor::clock;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const SHARDS: usize = 64;

/// The most keys of a shard: 65,536 of a limit in all, some 2 MB.
const KEYS_MAX: usize = 1024;

/// Buckets that newcomers share in a shard that is full of keys which still wait for calls of theirs to come back.
const SHARED: u64 = 64;

/// The pause between two sweeps of a full shard.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Time since the limit began, which no clock that is set moves.
#[derive(Clone)]
pub(super) struct Ticks {
    clock: Arc<dyn Clock>,
    began: Duration,
}

impl Ticks {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Ticks {
        let began = clock.ticks();
        Ticks { clock, began }
    }
}

impl clock::Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.clock.ticks().saturating_sub(self.began)
    }
}

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticks")
    }
}

/// When each key's bucket would be full again, as the time that it is judged by has it.
#[derive(Debug)]
pub(super) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    ticks: Ticks,
}

#[derive(Debug, Default)]
struct Shard {
    full_at: HashMap<u64, Nanos>,
    shared: HashMap<u64, Nanos>,
    swept_at: Option<Duration>,
}

impl Buckets {
    pub(super) fn new(ticks: Ticks) -> Buckets {
        Buckets { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), ticks }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // The hash's highest bits; the map in the shard goes by all of them.
        let number = usize::try_from(key >> (u64::BITS - SHARDS.trailing_zeros())).unwrap_or(0);
        lock(&self.shards[number])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A panic while it was held cannot have left it half written: each write is one insertion.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Whether a key that is not known yet finds no place.
    fn is_full(&mut self, key: u64, ticks: &Ticks) -> bool {
        if self.full_at.len() < KEYS_MAX || self.full_at.contains_key(&key) {
            return false;
        }
        let now = clock::Clock::now(ticks);
        if self.swept_at.is_none_or(|at| now.saturating_sub(at) >= SWEEP_PAUSE) {
            self.swept_at = Some(now);
            self.retain(Nanos::from(now));
        }
        self.full_at.len() >= KEYS_MAX
    }

    /// Drops the buckets that are full again: they are as good as new ones.
    fn retain(&mut self, now: Nanos) {
        self.full_at.retain(|_, full_at| *full_at > now);
        self.shared.retain(|_, full_at| *full_at > now);
    }
}

impl StateStore for Buckets {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(*key);
        let (map, key) = match shard.is_full(*key, &self.ticks) {
            false => (&mut shard.full_at, *key),
            true => (&mut shard.shared, *key % SHARED),
        };
        let (outcome, full_at) = measure(map.get(&key).copied())?;
        map.insert(key, full_at);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<u64> for Buckets {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.retain(drop_below);
            if shard.full_at.capacity() > 4 * shard.full_at.len().max(16) {
                shard.full_at.shrink_to_fit();
            }
        }
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard)).map(|shard| shard.full_at.len() + shard.shared.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, UnixMillis};
    use governor::middleware::NoOpMiddleware;
    use governor::{Quota, RateLimiter};
    use std::num::NonZeroU32;

    /// Without `KEYS_MAX` each made-up name would stay for as long as its bucket fills.
    #[test]
    fn threat_45_made_up_names_fill_no_memory_and_a_known_one_keeps_its_count() {
        let manual = ManualClock::at(UnixMillis(1_767_225_600_000));
        let ticks = Ticks::new(Arc::new(manual.clone()));
        let quota = Quota::per_hour(NonZeroU32::new(2).expect("two"));
        let limiter: RateLimiter<u64, Buckets, Ticks, NoOpMiddleware<Duration>> =
            RateLimiter::new(quota, Buckets::new(ticks.clone()), ticks);
        // SplitMix64's step: spread as hashes are.
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        assert!(limiter.check_key(&key(0)).is_ok() && limiter.check_key(&key(0)).is_ok());
        for number in 1..200_000 {
            let _ = limiter.check_key(&key(number));
        }
        let most = SHARDS * (KEYS_MAX + 64);
        assert!(limiter.len() <= most && limiter.len() > SHARDS * KEYS_MAX / 2, "{}", limiter.len());
        assert!(limiter.check_key(&key(0)).is_err(), "who was counted before is counted on");
        let newcomers = (200_000..210_000).filter(|number| limiter.check_key(&key(*number)).is_ok()).count();
        assert!(newcomers < 500, "newcomers share what is left: {newcomers} of 10,000");
        // Half an hour brings one call back, an hour all of them: then nothing need be known of anyone.
        manual.advance(Duration::from_secs(1801));
        assert!(limiter.check_key(&key(0)).is_ok() && limiter.check_key(&key(0)).is_err());
        manual.advance(Duration::from_secs(7200));
        assert!(limiter.check_key(&key(300_000)).is_ok());
        limiter.retain_recent();
        assert_eq!(limiter.len(), 1);
    }
}
