//! A gate before any store's writes: it is closed while the store's records move elsewhere, so that the last of them can be taken over exactly.
//!
//! It closes in two steps. First nothing new is begun, while what ends something goes through: a grant whose refresh token is spent by now
//! must still reach the disk. Once nothing is under way, no write at all goes through. Reads go on throughout.

use crate::store::{Change, Holder, Kind, Lease, Scanned, Store, StoreError, Stored, Write};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// No token call takes longer than this, with all tries to write its outcome: whoever began before the gate did has ended by then.
const CLOSING_MAX: Duration = Duration::from_secs(45);

/// How far the gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    Open,
    /// What ends a token call or a connect session is written, and nothing else.
    Closing,
    Closed,
}

impl Position {
    pub fn name(self) -> &'static str {
        match self {
            Position::Open => "open",
            Position::Closing => "closing",
            Position::Closed => "closed",
        }
    }
}

/// A store behind a gate that is open at first.
pub struct Gate {
    store: Arc<dyn Store>,
    /// [`Position`] as a number: each write asks for it.
    position: AtomicU8,
    closing_since: Mutex<Option<Instant>>,
}

impl Gate {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Gate> {
        Arc::new(Gate { store, position: AtomicU8::new(0), closing_since: Mutex::new(None) })
    }

    pub fn position(&self) -> Position {
        match self.position.load(Ordering::SeqCst) {
            0 => Position::Open,
            1 => Position::Closing,
            _ => Position::Closed,
        }
    }

    /// Begins to close it, or closes it if `idle`: nothing that was begun before it began to close is under way any more.
    pub fn close_gate(&self, idle: impl FnOnce() -> bool) -> Position {
        let mut since = self.closing_since.lock().unwrap_or_else(PoisonError::into_inner);
        match *since {
            None => {
                self.position.store(1, Ordering::SeqCst);
                *since = Some(Instant::now());
            }
            Some(began) if began.elapsed() >= CLOSING_MAX || idle() => self.position.store(2, Ordering::SeqCst),
            Some(_) => {}
        }
        drop(since);
        self.position()
    }

    pub fn open_gate(&self) -> Position {
        let mut since = self.closing_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.position.store(0, Ordering::SeqCst);
        *since = None;
        drop(since);
        self.position()
    }

    fn lets_pass(&self, batch: &[Write]) -> bool {
        match self.position() {
            Position::Open => true,
            // Every outcome takes its mark along; see `Records::settle` and `Records::land`.
            Position::Closing => batch.iter().any(|write| write.kind == Kind::Intent && write.value.is_none()),
            Position::Closed => false,
        }
    }
}

fn moving() -> StoreError {
    StoreError::Unavailable("its records are being moved to another store, and it takes no writes".to_owned())
}

impl Store for Gate {
    fn get(&self, kind: Kind, key: &[u8]) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        self.store.get(kind, key)
    }

    fn write(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        if self.lets_pass(&batch) { self.store.write(batch) } else { ready(Err(moving())).boxed() }
    }

    fn scan(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> BoxFuture<'_, Result<Scanned, StoreError>> {
        self.store.scan(kind, prefix, after, limit)
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.store.watch()
    }

    fn ready(&self) -> Result<(), StoreError> {
        match self.position() {
            Position::Open => self.store.ready(),
            Position::Closing | Position::Closed => Err(moving()),
        }
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn lease(&self, key: &[u8], holder: Holder, ttl: Duration) -> BoxFuture<'_, Result<Lease, StoreError>> {
        self.store.lease(key, holder, ttl)
    }

    fn release(&self, key: &[u8], holder: Holder) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.release(key, holder)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;
    use crate::base::ids::ConnectionKey;
    use crate::store::codec::tests::full;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::{Sealer, SealingKey};
    use crate::store::{Expect, Intent, Records};

    /// A refresh that is under way when the records begin to move: its refresh token is spent, so that its outcome must be taken.
    #[tokio::test(start_paused = true)]
    async fn what_was_begun_ends_and_nothing_new_begins() {
        let records = Records::new(MemoryStore::new(), Sealer::new(&[SealingKey::generate()]));
        let connection = full(ConnectionKey::new("g", "m", "default"), "old");
        let intent = Intent { key: connection.key.clone(), begun_at: UnixMillis(1), version: 1 };
        records.put_connection(&connection, Expect::Absent).await.expect("written");
        records.begin_intent(&intent).await.expect("begun");
        assert_eq!(records.gate().close_gate(|| true), Position::Closing, "never in one step");
        assert!(records.ready().is_err());
        assert!(matches!(records.begin_intent(&intent).await, Err(StoreError::Unavailable(_))));
        assert!(records.put_connection(&connection, Expect::Any).await.is_err());
        assert_eq!(records.gate().close_gate(|| false), Position::Closing);
        let rotated = full(connection.key.clone(), "rotated");
        records.settle(&rotated, Expect::Version(1)).await.expect("an outcome is taken");
        assert_eq!(records.gate().close_gate(|| true), Position::Closed);
        assert!(records.settle(&rotated, Expect::Any).await.is_err());
        let read = records.connection(&connection.key).await.expect("reads go on").expect("there");
        assert_eq!(read.record.access_token.expose(), "rotated");
        records.gate().open_gate();
        records.ready().expect("ready");
        records.put_connection(&connection, Expect::Any).await.expect("written");
        records.gate().close_gate(|| false);
        tokio::time::advance(CLOSING_MAX).await;
        assert_eq!(records.gate().close_gate(|| false), Position::Closed, "no token call takes so long");
    }
}
