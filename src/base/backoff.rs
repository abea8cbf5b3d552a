//! Exponential backoff with jitter, and jitter alone.

use crate::base::ids::random_bytes;
use std::time::Duration;

/// How long to wait after the `failures`-th failure in a row (from 1): `first` doubled each time up to `most`, then spread evenly over its
/// upper half, so that many connections that failed together do not try again together.
pub fn backoff(failures: u32, first: Duration, most: Duration) -> Duration {
    let doubled = first.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let ceiling = doubled.min(most);
    ceiling / 2 + spread(ceiling / 2)
}

/// A random share of `up_to`, evenly spread.
pub fn spread(up_to: Duration) -> Duration {
    let share = f64::from(u32::from_le_bytes(random_bytes::<4>())) / f64::from(u32::MAX);
    up_to.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_ceiling_and_never_past_it() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(60));
        for failures in 1..200 {
            let wait = backoff(failures, first, most);
            assert!(wait <= most, "{failures}: {wait:?}");
            assert!(wait >= first / 2, "{failures}: {wait:?}");
        }
        assert!(backoff(40, first, most) >= most / 2);
    }
}
