//! The keeper against a real token endpoint on loopback and a real store, each with faults on demand.

mod flights;
mod grants;
mod minted;
mod outages;
mod renewals;
mod resolved;
mod sources;
mod upkept;

use super::*;
use crate::base::clock::{Clock, ManualClock, UnixMillis};
use crate::base::ids::ConnectionKey;
use crate::oauth::tests::{Answer, Endpoint, START, registration, token_client};
use crate::provider::Registration;
use crate::store::memory::MemoryStore;
use crate::store::seal::{Sealer, SealingKey};
use crate::store::{Change, Connection, Expect, Holder, Intent, Kind, Lease, Records, State, Store, StoreError, Stored, Write};
use futures_util::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast};

const HOUR: Duration = Duration::from_secs(3600);

/// A memory store whose writes of connections can be made to fail or to wait, and whose reads are counted.
struct Faulty {
    inner: Arc<MemoryStore>,
    reads: AtomicUsize,
    scans: AtomicUsize,
    fail: AtomicBool,
    fail_intents: AtomicBool,
    shared: AtomicBool,
    /// Another replica has every lease.
    leased: AtomicBool,
    gate: Semaphore,
}

const OPEN: usize = 1_000_000;

impl Store for Faulty {
    fn get(&self, kind: Kind, key: &[u8]) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get(kind, key)
    }

    fn write(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        let of_connection = batch.iter().any(|write| write.kind == Kind::Connection);
        let fails = if of_connection { &self.fail } else { &self.fail_intents };
        if fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Unavailable("disk full".into())) });
        }
        Box::pin(async move {
            let _permit = if of_connection { Some(self.gate.acquire().await) } else { None };
            self.inner.write(batch).await
        })
    }

    fn scan(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Vec<u8>, Stored)>, StoreError>> {
        self.scans.fetch_add(1, Ordering::SeqCst);
        self.inner.scan(kind, prefix, after, limit)
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.inner.watch()
    }

    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }

    fn lease(&self, _: &[u8], _: Holder, _: Duration) -> BoxFuture<'_, Result<Lease, StoreError>> {
        let is_taken = self.leased.load(Ordering::SeqCst);
        Box::pin(async move { Ok(if is_taken { Lease::Taken { left: Duration::from_secs(1) } } else { Lease::Held }) })
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.close()
    }
}

struct World {
    endpoint: Endpoint,
    store: Arc<Faulty>,
    records: Records,
    clock: ManualClock,
    reg: Arc<Registration>,
    keeper: Arc<Keeper>,
}

fn key() -> ConnectionKey {
    ConnectionKey::new("acme", "megan@personalemail.com", "default")
}

/// An active connection whose hour-long token came at `START`.
pub(super) fn connection() -> Connection {
    Connection {
        id: "con_1".into(),
        key: key(),
        state: State::Active,
        access_token: "A0".into(),
        refresh_token: Some("R0".into()),
        token_type: "Bearer".into(),
        obtained_at: START,
        expires_at: Some(START.plus(HOUR)),
        scopes: vec!["a".into(), "b".into()],
        missing_scopes: Vec::new(),
        created_at: START,
        updated_at: START,
        last_used_at: None,
        metadata: BTreeMap::new(),
        last_error: None,
        refresh_failures: 0,
        refresh_not_before: None,
        key_material: None,
    }
}

impl World {
    /// Nothing stored yet; the clock stands at the token's beginning.
    async fn empty() -> World {
        let endpoint = Endpoint::start().await;
        let store = Arc::new(Faulty {
            inner: MemoryStore::new(),
            reads: AtomicUsize::new(0),
            scans: AtomicUsize::new(0),
            fail: AtomicBool::new(false),
            fail_intents: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            leased: AtomicBool::new(false),
            gate: Semaphore::new(OPEN),
        });
        let records = Records::new(store.clone(), Sealer::new(&[SealingKey::generate()]));
        let clock = ManualClock::at(START);
        let reg = Arc::new(registration(&endpoint.base));
        let keeper = Keeper::new(records.clone(), token_client(&clock), Arc::new(clock.clone()), Handle::current());
        World { endpoint, store, records, clock, reg, keeper }
    }

    /// With the connection, `after` seconds into its token's hour.
    async fn after(seconds: u64) -> World {
        let world = World::empty().await;
        world.put(&connection()).await;
        world.clock.advance(Duration::from_secs(seconds));
        world
    }

    async fn expired() -> World {
        World::after(3601).await
    }

    async fn put(&self, connection: &Connection) {
        self.records.put_connection(connection, Expect::Any).await.expect("written");
        self.keeper.forget(connection.key.borrow());
    }

    async fn token(&self) -> Result<String, KeeperError> {
        self.keeper.credential(&self.reg, key().borrow()).await.map(|token| token.credential.access_token.expose().to_owned())
    }

    async fn held(&self) -> Arc<Token> {
        self.keeper.credential(&self.reg, key().borrow()).await.expect("a token")
    }

    fn fresh(&self) -> Option<String> {
        self.keeper.fresh(&self.reg, key().borrow()).map(|token| token.credential.access_token.expose().to_owned())
    }

    async fn stored(&self) -> Option<Connection> {
        self.records.connection(&key()).await.expect("read").map(|keyed| keyed.record)
    }

    fn posts(&self) -> usize {
        self.endpoint.count("/token")
    }

    fn spawn(&self) -> tokio::task::JoinHandle<Result<String, KeeperError>> {
        let (keeper, reg) = (Arc::clone(&self.keeper), Arc::clone(&self.reg));
        tokio::spawn(
            async move { keeper.credential(&reg, key().borrow()).await.map(|token| token.credential.access_token.expose().to_owned()) },
        )
    }
}

/// Polls a condition until it holds, for at most ten seconds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polls = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), polls).await.is_ok(), "never: {what}");
}

fn refused(code: &str) -> Answer {
    Answer::json(400, &format!(r#"{{"error":"{code}"}}"#))
}
