//! The store in one folder of this machine's disk, on sled 0.34.
//!
//! What sled does not promise is added here. One thread writes: it takes what is queued as one group, applies it in one transaction, flushes
//! and fsyncs, notes the new state in a side record outside of sled, and only then answers (so a read never shows what is not yet on disk).
//! Opening compares what sled recovered with the side record and with a digest over all records, and refuses on any difference, because sled
//! itself opens a cut file as if the missing records had never been. Reads and scans run on the blocking pool; after a failed write they go
//! on from sled's memory, and then alone may show a write that was refused.
//!
//! Values and keys of records lie as they come: values are sealed by the layer above, keys (with end users' names) are not.

mod open;
pub mod repair;
mod side;
mod tally;
mod writer;

#[cfg(test)]
mod damage;
#[cfg(test)]
mod kill;

use self::open::Opened;
use self::writer::{Health, Job};
use crate::store::{Change, Kind, Scanned, Store, StoreError, Stored, WATCH_QUEUE_MAX, Write, check_sizes};
use futures_util::future::{BoxFuture, FutureExt};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// How many writes may wait for the writer; a caller beyond them waits for room.
const QUEUE_MAX: usize = 1024;

/// How long a caller waits for its write. Past that its outcome is unknown, as after any lost answer: it may still come to be.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

/// See the module's page. Made by [`SledStore::open`]; dropped without [`Store::close`], it closes itself in the background.
pub struct SledStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

/// What callers and the writer share.
struct Shared {
    path: PathBuf,
    /// `None` while closed or broken. The writer holds it exclusively from a transaction's begin to its fsync.
    opened: RwLock<Option<Opened>>,
    health: Mutex<Health>,
    changes: broadcast::Sender<Change>,
}

impl SledStore {
    /// Opens the store in the folder `path`, making it if there is nothing. Blocks; call it at start, or on a blocking thread.
    ///
    /// # Errors
    /// `Damaged` if records are missing or changed, `Unavailable` if another process has it open or the disk refuses.
    pub fn open(path: &Path) -> Result<Arc<SledStore>, StoreError> {
        let lock = open::lock(path)?;
        let opened = open::open(path)?;
        let tally = opened.tally;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            opened: RwLock::new(Some(opened)),
            health: Mutex::new(Health::Well),
            changes: broadcast::channel(WATCH_QUEUE_MAX).0,
        });
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        writer::start(shared.clone(), lock, tally, queue)?;
        Ok(Arc::new(SledStore { shared, jobs }))
    }

    /// Whether `path` holds a store into which something was ever written. Where in doubt, it does.
    pub fn exists(path: &Path) -> bool {
        open::exists(path)
    }

    async fn write_owned(&self, batch: Vec<Write>) -> Result<Vec<u64>, StoreError> {
        check_sizes(&batch)?;
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.jobs.send(Job::Write { batch, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        match tokio::time::timeout(WRITE_WAIT_MAX, asked).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable(format!("the disk took longer than {} s", WRITE_WAIT_MAX.as_secs()))),
        }
    }

    /// Runs a read on the blocking pool: sled reads from disk what its cache does not hold.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Opened) -> ::sled::Result<T> + Send + 'static) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let guard = shared.opened.read().unwrap_or_else(PoisonError::into_inner);
            match guard.as_ref() {
                Some(opened) => read(opened).map_err(|error| open::explain(&shared.path, &error)),
                None => Err(shared.check_health().err().unwrap_or_else(closed)),
            }
        });
        task.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a read broke off".into())))
    }
}

impl Shared {
    fn check_health(&self) -> Result<(), StoreError> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).check()
    }

    fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

impl Store for SledStore {
    fn get(&self, kind: Kind, key: &[u8]) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        let key = key.to_vec();
        async move {
            match self.read(move |opened| opened.tree(kind).get(&key)).await? {
                Some(bytes) => parse(kind, &bytes).map(Some),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn write(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        self.write_owned(batch).boxed()
    }

    fn scan(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> BoxFuture<'_, Result<Scanned, StoreError>> {
        let prefix = prefix.to_vec();
        let from = match after {
            Some(after) if after >= prefix.as_slice() => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.clone()),
        };
        async move {
            let within = move |opened: &Opened| {
                let all = opened.tree(kind).range::<Vec<u8>, _>((from, Bound::Unbounded));
                let ours = all.take_while(|entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)));
                ours.take(limit).collect::<::sled::Result<Vec<_>>>()
            };
            let found = self.read(within).await?;
            found.into_iter().map(|(key, bytes)| Ok((key.to_vec(), parse(kind, &bytes)?))).collect()
        }
        .boxed()
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    fn ready(&self) -> Result<(), StoreError> {
        let health = self.shared.check_health();
        if health.is_err() {
            // The writer mends what can be mended when it is asked to; a full queue means that it is asked already.
            let _ = self.jobs.try_send(Job::Mend);
        }
        health.and_then(|()| open::room(&self.shared.path))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let (answer, answered) = oneshot::channel();
            if self.jobs.send(Job::Close { answer }).await.is_err() {
                return Ok(());
            }
            // An answer that never comes means that another close was before this one in the queue.
            answered.await.unwrap_or(Ok(()))
        }
        .boxed()
    }
}

/// A tree's value: the version, little-endian, then the sealed bytes.
fn parse(kind: Kind, bytes: &[u8]) -> Result<Stored, StoreError> {
    match bytes.split_first_chunk() {
        Some((version, value)) => Ok(Stored { version: u64::from_le_bytes(*version), value: value.to_vec() }),
        None => Err(StoreError::Damaged(format!("a record of {} is cut short", kind.name()))),
    }
}
