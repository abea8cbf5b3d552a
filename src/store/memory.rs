//! The store that lives as long as the process: for tests, the sandbox and trying things out.

use crate::store::{Change, Kind, Scanned, Store, StoreError, Stored, WATCH_QUEUE_MAX, Write, check_sizes};
use futures_util::future::{BoxFuture, FutureExt, ready};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

type Place = (Kind, Vec<u8>);

/// Records in a map under one lock, which is held for a few look-ups at a time and never across an await.
pub struct MemoryStore {
    /// `None` once closed.
    records: Mutex<Option<BTreeMap<Place, Stored>>>,
    changes: broadcast::Sender<Change>,
}

impl MemoryStore {
    pub fn new() -> Arc<Self> {
        Arc::new(MemoryStore { records: Mutex::new(Some(BTreeMap::new())), changes: broadcast::channel(WATCH_QUEUE_MAX).0 })
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<Place, Stored>>> {
        // A panic under the lock leaves the map whole: a batch is staged first and moved in last.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, batch: Vec<Write>) -> Result<Vec<u64>, StoreError> {
        check_sizes(&batch)?;
        let mut guard = self.lock();
        let records = guard.as_mut().ok_or_else(closed)?;
        // What each touched record becomes, so that a later write of the batch that fails leaves the map as it was.
        let mut staged: BTreeMap<Place, Option<Stored>> = BTreeMap::new();
        let (mut versions, mut changes) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for write in batch {
            let place = (write.kind, write.key);
            let current = staged.get(&place).map_or_else(|| records.get(&place), Option::as_ref).map(|stored| stored.version);
            if !write.expect.holds(current) {
                return Err(StoreError::Conflict);
            }
            let after = write.value.map(|value| Stored { version: current.unwrap_or(0) + 1, value });
            let version = after.as_ref().map(|stored| stored.version);
            versions.push(version.unwrap_or(0));
            if version.is_some() || current.is_some() {
                changes.push(Change { kind: place.0, key: place.1.clone(), version });
            }
            staged.insert(place, after);
        }
        for (place, after) in staged {
            match after {
                Some(stored) => records.insert(place, stored),
                None => records.remove(&place),
            };
        }
        // Sent under the lock, so that watchers see the order of the writes. It fails only when nobody watches.
        for change in changes {
            let _ = self.changes.send(change);
        }
        Ok(versions)
    }

    fn find(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Scanned, StoreError> {
        let guard = self.lock();
        let records = guard.as_ref().ok_or_else(closed)?;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((kind, after.to_vec())),
            _ => Bound::Included((kind, prefix.to_vec())),
        };
        let within = records.range((from, Bound::Unbounded)).take_while(|((of, key), _)| *of == kind && key.starts_with(prefix));
        Ok(within.take(limit).map(|((_, key), stored)| (key.clone(), stored.clone())).collect())
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

impl Store for MemoryStore {
    fn get(&self, kind: Kind, key: &[u8]) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        let found = self.lock().as_ref().ok_or_else(closed).map(|records| records.get(&(kind, key.to_vec())).cloned());
        ready(found).boxed()
    }

    fn write(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        async move { self.apply(batch) }.boxed()
    }

    fn scan(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> BoxFuture<'_, Result<Scanned, StoreError>> {
        ready(self.find(kind, prefix, after, limit)).boxed()
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.lock().as_ref().map(|_| ()).ok_or_else(closed)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        *self.lock() = None;
        ready(Ok(())).boxed()
    }
}
