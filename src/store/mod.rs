//! Floor 1: where records live. [`Store`] is the contract that every store keeps; [`Records`] puts typed, sealed records on top of any.
//!
//! A store sees only opaque, already sealed bytes under a key; it never decides what a record means. Each call is off the request threads:
//! a fresh token is served from the keeper's table, and only what is missing there comes here.

pub mod backup;
pub mod codec;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod gate;
pub mod keyfile;
pub mod memory;
pub mod mirror;
mod outbox;
pub mod pages;
pub mod postgres;
pub mod record;
pub mod records;
pub mod redis;
pub mod rekey;
pub mod seal;
pub mod sled;
pub mod survey;
pub mod wire;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod golden;

pub use outbox::{FoundNotice, OutboxWrite};
pub use record::{Connection, Intent, State};
pub use records::{FoundSession, Keyed, Records, SessionBytes, SessionWrite};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::time::Duration;
use tokio::sync::broadcast;

/// The longest key and sealed value that any store takes: enough for the longest tokens seen, and little enough that no store needs a
/// second way of keeping large ones (sled would put them in files of their own, which it does not sync).
pub const KEY_LEN_MAX: usize = 1024;
pub const VALUE_LEN_MAX: usize = 48 * 1024;

/// How many changes a watcher may be behind before it is told that it lagged.
pub(crate) const WATCH_QUEUE_MAX: usize = 1024;

/// What can go into a store: one tree, table or key prefix each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Grants: [`record::Connection`] under [`crate::base::ids::ConnectionKey::to_bytes`].
    Connection,
    /// Connect sessions and parked callbacks, short-lived and single-use.
    Session,
    /// Write-ahead marks of token calls whose answer is not yet on disk: [`record::Intent`] under the connection's key.
    Intent,
    /// Notices to deliver at least once.
    Outbox,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Connection, Kind::Session, Kind::Intent, Kind::Outbox];

    /// The kind's number in shared stores, for good.
    pub(crate) fn number(self) -> i16 {
        match self {
            Kind::Connection => 1,
            Kind::Session => 2,
            Kind::Intent => 3,
            Kind::Outbox => 4,
        }
    }

    pub(crate) fn from_number(number: i16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The kind's fixed name on disk and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Connection => "connections",
            Kind::Session => "sessions",
            Kind::Intent => "intents",
            Kind::Outbox => "outbox",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A stored value and its version: 1 when first written, one more at each write of that key since it was last absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub version: u64,
    pub value: Vec<u8>,
}

/// What a scan found: keys and records, in key order.
pub type Scanned = Vec<(Vec<u8>, Stored)>;

/// What must hold for a write to happen (compare-and-swap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Any,
    /// No record under this key.
    Absent,
    /// A record of exactly this version.
    Version(u64),
}

impl Expect {
    /// Whether this holds of a record whose version is `current`.
    pub(crate) fn holds(self, current: Option<u64>) -> bool {
        match self {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current == Some(version),
        }
    }
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub kind: Kind,
    pub key: Vec<u8>,
    pub expect: Expect,
    /// The new value, or `None` to delete (deleting what is absent is fine under [`Expect::Any`]).
    pub value: Option<Vec<u8>>,
}

/// A change that is durable, told to every watcher of this process (and, on shared stores, of every replica).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    pub key: Vec<u8>,
    /// The record's version after the change; `None` when it was deleted.
    pub version: Option<u64>,
}

impl Change {
    /// Any record of this kind may have changed: what was missed is not known. Its key is none that a record can have.
    pub fn anything(kind: Kind) -> Change {
        Change { kind, key: Vec::new(), version: None }
    }
}

/// Why a store call failed. Messages name paths, kinds and causes, never a value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A write's [`Expect`] did not hold: nothing of the batch was written. Read again and decide anew.
    #[error("the record was changed by another writer")]
    Conflict,
    /// The store cannot be reached or written now (disk full, read-only, closed). A later try may work; nothing was acknowledged.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Stored bytes are not what was written: damage, another key, a newer version. Trying again does not help.
    #[error("the store is damaged or sealed with another key: {0}")]
    Damaged(String),
}

/// Who asks for a lease: random, one a flight, so that no two flights of any process are ever taken for each other.
pub type Holder = [u8; 16];

/// Whose a lease is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The asker's, for the time it asked for.
    Held,
    /// Another's, for at most this long unless it is kept.
    Taken { left: Duration },
}

/// The contract of every store, held by `store::contract`'s tests.
///
/// - **Durable**: when `write` answers Ok, its whole batch survives a kill or power loss (memory: the process's life).
/// - **Atomic**: a batch is written wholly or not at all, also across a crash.
/// - **Linear**: a read that begins after a write's Ok sees it; writes of one key are ordered by version.
/// - **Watched**: after each durable write every live watcher gets its changes, in order. A slow watcher may be told that it lagged
///   (`broadcast`'s own error) and must then distrust all it has cached. Lossy otherwise in no way.
/// - **Cancellable**: dropping a call's future may leave its write undone or done, never half done.
pub trait Store: Send + Sync + 'static {
    /// The record under `key`, if any.
    fn get(&self, kind: Kind, key: &[u8]) -> BoxFuture<'_, Result<Option<Stored>, StoreError>>;

    /// Applies all writes or none; answers the new version of each (0 for a delete).
    fn write(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>>;

    /// Up to `limit` records whose keys start with `prefix`, in key order, after the key `after` (exclusive) where given.
    fn scan(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> BoxFuture<'_, Result<Scanned, StoreError>>;

    /// Changes from now on.
    fn watch(&self) -> broadcast::Receiver<Change>;

    /// Whether a write could be taken now; what `/readyz` tells.
    fn ready(&self) -> Result<(), StoreError>;

    /// Whether other processes may write the same records. Where they may, a refresh takes the connection's lease first.
    fn is_shared(&self) -> bool {
        false
    }

    /// Takes the lease named `key` for `ttl`, or keeps it for as long again if `holder` has it. A lease only spares calls; what is true is decided
    /// by a write's [`Expect`]. It ends by itself, so that a killed holder blocks nobody for longer than `ttl`, by the store's own clock.
    fn lease(&self, key: &[u8], holder: Holder, ttl: Duration) -> BoxFuture<'_, Result<Lease, StoreError>> {
        let _ = (key, holder, ttl);
        ready(Ok(Lease::Held)).boxed()
    }

    /// Lets go of the lease if `holder` still has it, so that the next one need not wait for its end.
    fn release(&self, key: &[u8], holder: Holder) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = (key, holder);
        ready(Ok(())).boxed()
    }

    /// Waits until everything acknowledged is on disk and lets go of files and locks. Later calls fail with `Unavailable`.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The first key after all that begin with `prefix`; `None` where there is none.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

/// Refuses what is over the limits before anything of the batch is written.
pub(crate) fn check_sizes(batch: &[Write]) -> Result<(), StoreError> {
    for Write { kind, key, value, .. } in batch {
        let value_len = value.as_ref().map_or(0, Vec::len);
        if key.len() > KEY_LEN_MAX || value_len > VALUE_LEN_MAX {
            let (key_len, name) = (key.len(), kind.name());
            return Err(StoreError::Unavailable(format!(
                "a record of {name} with a key of {key_len} bytes and a value of {value_len} is over the limit ({KEY_LEN_MAX} and {VALUE_LEN_MAX})"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(end_of(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!((end_of(b""), end_of(b"\xff")), (None, None));
    }
}
