//! The one thread that writes to a sled store: groups what is queued, makes it durable, then answers and tells the watchers.
//!
//! A group is one transaction: each caller's batch is checked against the records as the batches before it left them, and one that fails
//! its check is left out without harm to the others. After a failure nothing more is written until the store was opened and compared anew,
//! which is tried where the disk merely refused a write (full, read-only). After a failed fsync nothing short of a restart will do: what
//! the kernel then still shows of the file need not be what is on the disk.

use super::open::{self, Lock, Opened, TALLY_KEY, kind_index};
use super::tally::Tally;
use super::{Shared, closed};
use crate::store::{Change, Kind, StoreError, Write};
use ::sled::Transactional;
use ::sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How many callers' batches go into one transaction.
const GROUP_MAX: usize = 256;

/// How often a store that the disk refused is opened anew.
const MEND_EVERY: Duration = Duration::from_secs(1);

pub(super) enum Job {
    Write {
        batch: Vec<Write>,
        answer: oneshot::Sender<Result<Vec<u64>, StoreError>>,
    },
    /// Try to come back from a failure, if there is one.
    Mend,
    Close {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
}

/// Whether writes are taken.
pub(super) enum Health {
    Well,
    /// Writes fail. `mendable` where opening anew may help.
    Failed {
        why: String,
        mendable: bool,
    },
    Closed,
}

impl Health {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self {
            Health::Well => Ok(()),
            Health::Failed { why, .. } => Err(StoreError::Unavailable(why.clone())),
            Health::Closed => Err(closed()),
        }
    }
}

/// Starts the thread. It ends with a [`Job::Close`], or when the store is dropped.
pub(super) fn start(shared: Arc<Shared>, lock: Lock, tally: Tally, queue: mpsc::Receiver<Job>) -> Result<(), StoreError> {
    let writer = Writer { shared, lock, tally, next_mend: Instant::now() };
    let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(queue));
    thread.map(drop).map_err(|error| StoreError::Unavailable(format!("the store's thread cannot be started: {error}")))
}

struct Writer {
    shared: Arc<Shared>,
    lock: Lock,
    /// What the store holds, by all groups that were acknowledged.
    tally: Tally,
    next_mend: Instant,
}

/// One caller's batch in a group.
struct Pending {
    batch: Vec<Write>,
    answer: oneshot::Sender<Result<Vec<u64>, StoreError>>,
}

/// What became of one batch: its answer, and the changes to tell.
type Outcome = Result<(Vec<u64>, Vec<Change>), StoreError>;

/// Why a group is not on disk.
struct Failure {
    why: String,
    mendable: bool,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut close = None;
        while close.is_none() {
            let Some(first) = queue.blocking_recv() else { break };
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Write { batch, answer } => group.push(Pending { batch, answer }),
                    Job::Mend => drop(self.mend()),
                    Job::Close { answer } => {
                        close = Some(answer);
                        break;
                    }
                }
                if group.len() < GROUP_MAX {
                    next = queue.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.write(group);
            }
        }
        // Writes still queued behind a close are refused: their answer's sender is dropped with the queue.
        drop(queue);
        let result = self.shut();
        if let Some(answer) = close {
            let _ = answer.send(result);
        }
    }

    /// Makes the group durable and answers each of its callers. A caller that has gone away changes nothing.
    fn write(&mut self, group: Vec<Pending>) {
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|pending| (pending.batch, pending.answer)).unzip();
        match self.mend().and_then(|()| open::room(&self.shared.path)).and_then(|()| self.commit(&batches)) {
            Ok(outcomes) => {
                for (outcome, answer) in outcomes.into_iter().zip(answers) {
                    let result = outcome.map(|(versions, changes)| {
                        for change in changes {
                            // It fails only when nobody watches.
                            let _ = self.shared.changes.send(change);
                        }
                        versions
                    });
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn commit(&mut self, batches: &[Vec<Write>]) -> Result<Vec<Outcome>, StoreError> {
        let shared = self.shared.clone();
        let before = self.tally;
        // Held until the group is on disk, so that no read shows what is not.
        let mut guard = shared.opened.write().unwrap_or_else(PoisonError::into_inner);
        let opened = guard.as_mut().ok_or_else(closed)?;
        let committed = catch_unwind(AssertUnwindSafe(|| {
            let (outcomes, after) = apply(opened, batches, before)?;
            if let Some(after) = &after {
                sync(opened, after)?;
            }
            Ok((outcomes, after.unwrap_or(before)))
        }));
        drop(guard);
        let failure = match committed {
            Ok(Ok((outcomes, after))) => {
                self.tally = after;
                return Ok(outcomes);
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure { why: "sled failed in a write".into(), mendable: false },
        };
        let hint = if failure.mendable { "" } else { "; no write is taken until a restart" };
        let why = format!("{}: {}{hint}", self.shared.path.display(), failure.why);
        tracing::error!(store.path = %self.shared.path.display(), why = failure.why, "the store failed to write");
        shared.set_health(Health::Failed { why: why.clone(), mendable: failure.mendable });
        self.next_mend = Instant::now();
        Err(StoreError::Unavailable(why))
    }

    /// Ok if the store is well, if need be by opening it anew. Reads wait meanwhile; if it fails they fail too, until a later try.
    fn mend(&mut self) -> Result<(), StoreError> {
        let error = match &*self.shared.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Failed { why, mendable: true } => StoreError::Unavailable(why.clone()),
            health => return health.check(),
        };
        if Instant::now() < self.next_mend {
            return Err(error);
        }
        self.next_mend = Instant::now() + MEND_EVERY;
        // Until there is room again, what sled has in memory still serves reads.
        open::room(&self.shared.path)?;
        let path = &self.shared.path;
        let mut guard = self.shared.opened.write().unwrap_or_else(PoisonError::into_inner);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(guard.take())));
        match open::open(path) {
            Ok(opened) => {
                self.tally = opened.tally;
                *guard = Some(opened);
                drop(guard);
                self.shared.set_health(Health::Well);
                tracing::info!(store.path = %path.display(), "the store takes writes again");
                Ok(())
            }
            Err(error) => {
                let mendable = matches!(error, StoreError::Unavailable(_));
                self.shared.set_health(Health::Failed { why: error.to_string(), mendable });
                Err(error)
            }
        }
    }

    /// Lets go of all files. What was acknowledged is on disk already.
    fn shut(self) -> Result<(), StoreError> {
        self.shared.set_health(Health::Closed);
        let opened = self.shared.opened.write().unwrap_or_else(PoisonError::into_inner).take();
        // sled flushes as it goes, and panics if the disk refuses that.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(opened)));
        open::await_release(&self.shared.path);
        drop(self.lock);
        dropped.map_err(|_| StoreError::Unavailable("sled failed as it closed; all that was acknowledged is on disk".into()))
    }
}

/// One transaction over all batches; `None` for the tally if nothing changed.
fn apply(opened: &Opened, batches: &[Vec<Write>], before: Tally) -> Result<(Vec<Outcome>, Option<Tally>), Failure> {
    // The closure may be run again from the start, so it keeps nothing outside of itself. It does no I/O of its own.
    let begun = before.next();
    let result = opened.trees[..].transaction(|trees| {
        let mut tally = begun;
        let mut wrote = false;
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            outcomes.push(if holds(trees, batch)? {
                wrote |= !batch.is_empty();
                Ok(put(trees, batch, &mut tally)?)
            } else {
                Err(StoreError::Conflict)
            });
        }
        if wrote {
            trees[Kind::ALL.len()].insert(TALLY_KEY, tally.to_bytes().as_slice())?;
        }
        Ok((outcomes, wrote.then_some(tally)))
    });
    result.map_err(|error: TransactionError<Infallible>| match error {
        TransactionError::Abort(never) => match never {},
        TransactionError::Storage(error) => Failure::of(&error),
    })
}

type Step<T> = Result<T, ConflictableTransactionError<Infallible>>;

/// Whether every write of the batch may happen, given those before it in the same batch.
fn holds(trees: &[TransactionalTree], batch: &[Write]) -> Step<bool> {
    for (index, write) in batch.iter().enumerate() {
        let same = |other: &&Write| other.kind == write.kind && other.key == write.key;
        let stored = version(trees[kind_index(write.kind)].get(&write.key)?.as_deref());
        let current =
            batch[..index].iter().filter(same).fold(stored, |version, other| other.value.as_ref().map(|_| version.unwrap_or(0) + 1));
        if !write.expect.holds(current) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn put(trees: &[TransactionalTree], batch: &[Write], tally: &mut Tally) -> Step<(Vec<u64>, Vec<Change>)> {
    let (mut versions, mut changes) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for Write { kind, key, value, .. } in batch {
        let tree = &trees[kind_index(*kind)];
        let old = match value {
            Some(value) => {
                let next = version(tree.get(key)?.as_deref()).unwrap_or(0) + 1;
                let bytes = [&next.to_le_bytes(), value.as_slice()].concat();
                tally.add(*kind, key, &bytes);
                versions.push(next);
                changes.push(Change { kind: *kind, key: key.clone(), version: Some(next) });
                tree.insert(key.as_slice(), bytes)?
            }
            None => {
                let old = tree.remove(key.as_slice())?;
                versions.push(0);
                if old.is_some() {
                    changes.push(Change { kind: *kind, key: key.clone(), version: None });
                }
                old
            }
        };
        if let Some(old) = old {
            tally.remove(*kind, key, &old);
        }
    }
    Ok((versions, changes))
}

fn version(bytes: Option<&[u8]>) -> Option<u64> {
    bytes.map(|bytes| bytes.first_chunk().map_or(0, |version| u64::from_le_bytes(*version)))
}

/// Brings the transaction to the disk, and notes that it is there.
fn sync(opened: &mut Opened, after: &Tally) -> Result<(), Failure> {
    opened.db.flush().map_err(|error| Failure::of(&error))?;
    opened.data.sync_all().map_err(|error| Failure { why: format!("fsync failed: {error}"), mendable: false })?;
    opened.side.write(after).map_err(|error| Failure::of_io(&error))
}

impl Failure {
    fn of(error: &::sled::Error) -> Failure {
        match error {
            ::sled::Error::Io(error) => Failure::of_io(error),
            ::sled::Error::Corruption { .. } => Failure { why: "sled found damage".into(), mendable: false },
            _ => Failure { why: "sled failed".into(), mendable: false },
        }
    }

    /// A refused write left nothing behind that the next opening would not see; any other fault may have.
    fn of_io(error: &io::Error) -> Failure {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let mendable = matches!(error.kind(), FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull);
        Failure { why: format!("the disk refused a write: {error}"), mendable }
    }
}
