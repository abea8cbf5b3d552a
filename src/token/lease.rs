//! The lease of a connection where replicas share its store: it spares the provider a second refresh, and is no more than that.
//!
//! What is true is decided by the record's version: a flight writes its grant only over the refresh token that it sent (`settle.rs`). The lease is
//! kept for as long as the call takes, however slow the endpoint, so that none outlives it; a killed holder's ends by itself.

use super::refresh::Flight;
use crate::base::ids::random_bytes;
use crate::store::{Holder, Lease, Records, StoreError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a lease is taken for; it is kept at a third of that.
const TTL: Duration = Duration::from_secs(6);
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at another's: its end is mostly seen by the change that it makes.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a flight waits for another replica's at most; then it is tried by its next call.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A lease that is held, and kept until it is dropped.
pub(super) struct Held {
    records: Records,
    key: Vec<u8>,
    holder: Holder,
    keeping: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeping.abort();
        let (records, key, holder) = (self.records.clone(), std::mem::take(&mut self.key), self.holder);
        // One that is not let go of ends by itself.
        tokio::spawn(async move { records.release(&key, holder).await });
    }
}

/// How a flight got on.
pub(super) enum Leave {
    /// The store is this process's own: nobody else refreshes.
    NotNeeded,
    Held(Held),
    /// Another replica has refreshed meanwhile, or had the lease for too long: what was read is old.
    Waited,
}

impl Flight {
    /// Takes the connection's lease where its store is shared, waiting for another replica's to end.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn lease(&self) -> Result<Leave, StoreError> {
        let records = &self.keeper.records;
        if !records.is_shared() {
            return Ok(Leave::NotNeeded);
        }
        let (key, holder) = (self.key.to_bytes(), random_bytes());
        let epoch = self.slot.epoch();
        let give_up = Instant::now() + WAIT_MAX;
        let mut waited = false;
        loop {
            match records.lease(&key, holder, TTL).await? {
                Lease::Held if waited => {
                    // What was read before the wait is old. The lease is given back: the next round takes it at once, or finds a fresh token.
                    records.release(&key, holder).await?;
                    return Ok(Leave::Waited);
                }
                Lease::Held => return Ok(Leave::Held(keep(records.clone(), key, holder))),
                Lease::Taken { left } => {
                    waited = true;
                    tokio::time::sleep(left.clamp(Duration::from_millis(20), LOOK_EVERY)).await;
                    if self.slot.epoch() != epoch || Instant::now() > give_up {
                        return Ok(Leave::Waited);
                    }
                }
            }
        }
    }
}

fn keep(records: Records, key: Vec<u8>, holder: Holder) -> Held {
    let keeping = tokio::spawn({
        let (records, key) = (records.clone(), key.clone());
        async move {
            loop {
                tokio::time::sleep(KEEP_EVERY).await;
                // One that could not be kept is no reason to stop: the call is under way, and the version decides.
                let _ = records.lease(&key, holder, TTL).await;
            }
        }
    });
    Held { records, key, holder, keeping }
}
