//! Documents that providers publish (metadata, key sets), kept for a while: one fetch in flight each, a failed one not repeated at once.

use super::TokenError;
use crate::base::clock::{Clock, UnixMillis};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// More than a config names; what reloads left behind is dropped beyond it.
const DOCUMENTS_MAX: usize = 256;

/// How long a failure is told again without another try.
const PAUSE: Duration = Duration::from_secs(10);

/// Why there is no document.
#[derive(Debug, Clone)]
pub(super) enum Missing {
    /// The provider answered that it has none.
    Absent,
    Failed(TokenError),
}

/// Documents by URL; clones share them.
pub(super) struct Cache<T> {
    slots: Arc<Mutex<Slots<T>>>,
    clock: Arc<dyn Clock>,
    fresh_for: Duration,
}

type Slots<T> = HashMap<Box<str>, Arc<Slot<T>>>;

struct Slot<T> {
    kept: Mutex<Kept<T>>,
    /// One permit: who holds it fetches.
    flight: Semaphore,
}

struct Kept<T> {
    document: Option<(Arc<T>, UnixMillis)>,
    failed: Option<(Missing, UnixMillis)>,
}

impl<T> Cache<T> {
    pub(super) fn new(clock: Arc<dyn Clock>, fresh_for: Duration) -> Self {
        Cache { slots: Arc::default(), clock, fresh_for }
    }

    /// The document, fetched by `load` where it is not kept or no longer fresh. A stale one stands in for a fetch that fails.
    pub(super) async fn get<F>(&self, url: &str, load: impl FnOnce() -> F) -> Result<Arc<T>, Missing>
    where
        F: Future<Output = Result<T, Missing>>,
    {
        let slot = self.slot(url);
        if let Some(outcome) = self.kept(&slot) {
            return outcome;
        }
        let stale = lock(&slot.kept).document.clone().map(|(document, _)| document);
        // Who has a stale one does not wait for another's fetch.
        let _permit = match (slot.flight.try_acquire(), stale) {
            (Ok(permit), _) => permit,
            (Err(_), Some(stale)) => return Ok(stale),
            (Err(_), None) => match slot.flight.acquire().await {
                Ok(permit) => permit,
                Err(_) => return Err(Missing::Absent),
            },
        };
        match self.kept(&slot) {
            Some(outcome) => outcome,
            None => self.fetch(&slot, load).await,
        }
    }

    /// A document other than `seen`, which lacked something: the kept one if another fetch brought it meanwhile, else a new one.
    pub(super) async fn newer<F>(&self, url: &str, seen: &Arc<T>, load: impl FnOnce() -> F) -> Result<Arc<T>, Missing>
    where
        F: Future<Output = Result<T, Missing>>,
    {
        let slot = self.slot(url);
        let Ok(_permit) = slot.flight.acquire().await else { return Err(Missing::Absent) };
        let kept = lock(&slot.kept).document.clone();
        match kept {
            Some((document, _)) if !Arc::ptr_eq(&document, seen) => Ok(document),
            _ => self.fetch(&slot, load).await,
        }
    }

    async fn fetch<F>(&self, slot: &Slot<T>, load: impl FnOnce() -> F) -> Result<Arc<T>, Missing>
    where
        F: Future<Output = Result<T, Missing>>,
    {
        let loaded = load().await;
        let now = self.clock.now();
        let mut kept = lock(&slot.kept);
        match loaded {
            Ok(document) => {
                let document = Arc::new(document);
                *kept = Kept { document: Some((document.clone(), now)), failed: None };
                Ok(document)
            }
            Err(missing) => {
                kept.failed = Some((missing.clone(), now));
                kept.document.as_ref().map(|(document, _)| document.clone()).ok_or(missing)
            }
        }
    }

    /// What stands without a fetch: a fresh document, or the failure of a moment ago with a stale one in its place.
    fn kept(&self, slot: &Slot<T>) -> Option<Result<Arc<T>, Missing>> {
        let now = self.clock.now();
        let kept = lock(&slot.kept);
        let within = |at: UnixMillis, span: Duration| at <= now && now.since(at) < span;
        match (&kept.document, &kept.failed) {
            (Some((document, at)), _) if within(*at, self.fresh_for) => Some(Ok(document.clone())),
            (Some((document, _)), Some((_, at))) if within(*at, PAUSE) => Some(Ok(document.clone())),
            (None, Some((missing, at))) if within(*at, PAUSE) => Some(Err(missing.clone())),
            _ => None,
        }
    }

    fn slot(&self, url: &str) -> Arc<Slot<T>> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(url) {
            return slot.clone();
        }
        if slots.len() >= DOCUMENTS_MAX {
            slots.clear();
        }
        let kept = Mutex::new(Kept { document: None, failed: None });
        let slot = Arc::new(Slot { kept, flight: Semaphore::new(1) });
        slots.insert(url.into(), slot.clone());
        slot
    }
}

/// A panic while it was held cannot have left it half written: each write is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Cache { slots: self.slots.clone(), clock: self.clock.clone(), fresh_for: self.fresh_for }
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("documents", &lock(&self.slots).len()).finish_non_exhaustive()
    }
}
