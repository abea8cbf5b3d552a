//! The store on a PostgreSQL that runs already, shared by as many replicas as there are.
//!
//! Records are rows of one table; a batch is one transaction that locks its rows, judges every expectation and then writes (`batch.rs`). Changes
//! are told by NOTIFY in the same transaction (`channel.rs`). Durable means `synchronous_commit`: it is set in each transaction, whatever the
//! server's default. Deliberately absent: anything of PostgreSQL that a record's meaning would depend on; rows are as opaque as in any store.

mod batch;
mod channel;
mod url;

use crate::base::ids::random_bytes;
use crate::store::{Change, Holder, Kind, Lease, Scanned, Store, StoreError, Stored, WATCH_QUEUE_MAX, Write, check_sizes, end_of};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_postgres::types::Type;
use tokio_postgres_rustls::MakeRustlsConnect;

pub use url::{PostgresUrl, UrlFault};

mod embedded {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// Connections of one process: store calls are short, and PostgreSQL's connections dear.
const CONNECTIONS_MAX: usize = 8;
/// How long a call waits for a connection, and for its answer.
const WITHIN: Duration = Duration::from_secs(5);
/// One migration at a time, whichever replicas start together: an arbitrary number for PostgreSQL's advisory lock.
const MIGRATION_LOCK: i64 = 0x00a7_7ac4_e000;

/// What is to be known of the server besides its address.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub tls: Arc<ClientConfig>,
    /// `durability: relaxed`: a server that may lose acknowledged writes is taken.
    pub relaxed: bool,
}

/// Records in PostgreSQL.
pub struct PostgresStore {
    pool: Pool,
    shared: Arc<Shared>,
    channel: Mutex<Option<JoinHandle<()>>>,
    relaxed: bool,
}

/// What the store and its channel share.
#[derive(Debug)]
struct Shared {
    /// Where it is, for errors; no password.
    place: String,
    /// Tells our own notifications from others'.
    me: String,
    changes: broadcast::Sender<Change>,
    /// Why the server is out of reach, as long as it is: calls then fail at once instead of waiting one after another.
    down: Mutex<Option<String>>,
    closed: AtomicBool,
}

impl Shared {
    fn check(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        match &*self.down.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(StoreError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    fn set_down(&self, why: Option<String>) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*down, &why) {
            (None, Some(why)) => tracing::error!(error = %why, "the store is out of reach: fresh tokens are served for `store.max_stale`"),
            (Some(_), None) => tracing::info!(store = %self.place, "the store is within reach again"),
            _ => {}
        }
        *down = why;
    }

    /// What went wrong, with where. The server's words are escaped: it could be anybody's.
    fn unavailable(&self, error: &(dyn std::error::Error + 'static)) -> StoreError {
        // The innermost says what happened; those around it, that something did.
        let mut innermost = error;
        while let Some(inner) = innermost.source() {
            innermost = inner;
        }
        StoreError::Unavailable(format!("{}: {}", self.place, innermost.to_string().escape_debug()))
    }

    /// Any record of these kinds may have changed.
    fn tell_doubt(&self) {
        for kind in Kind::ALL {
            let _ = self.changes.send(Change::anything(kind));
        }
    }
}

impl PostgresStore {
    /// Connects, brings the tables up to date and begins to follow changes.
    ///
    /// # Errors
    /// When the server is out of reach, is not durable enough, or holds the tables of a newer version.
    pub async fn open(url: &PostgresUrl, options: PostgresOptions) -> Result<Arc<PostgresStore>, StoreError> {
        let shared = Arc::new(Shared {
            place: url.place(),
            me: random_bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect(),
            changes: broadcast::channel(WATCH_QUEUE_MAX).0,
            down: Mutex::new(None),
            closed: AtomicBool::new(false),
        });
        let config = url.config();
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match url.tls {
            true => Manager::from_config(config.clone(), MakeRustlsConnect::new(ClientConfig::clone(&options.tls)), manager),
            false => Manager::from_config(config.clone(), NoTls, manager),
        };
        let timeouts = Timeouts { wait: Some(WITHIN), create: Some(WITHIN), recycle: Some(WITHIN) };
        let hook = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute("SET statement_timeout = '5s'").await.map_err(HookError::Backend) })
        });
        let builder = Pool::builder(manager).max_size(CONNECTIONS_MAX).timeouts(timeouts).runtime(Runtime::Tokio1).post_create(hook);
        let pool = builder.build().map_err(|error| shared.unavailable(&error))?;
        let relaxed = options.relaxed;
        let store = Arc::new(PostgresStore { pool: pool.clone(), shared: Arc::clone(&shared), channel: Mutex::new(None), relaxed });
        store.prepare().await?;
        let channel = channel::Channel { pool, url: url.clone(), tls: options.tls, shared };
        let listening = channel.start().await?;
        *store.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
        Ok(store)
    }

    async fn client(&self) -> Result<deadpool_postgres::Object, StoreError> {
        self.shared.check()?;
        match self.pool.get().await {
            Ok(client) => Ok(client),
            Err(PoolError::Timeout(_)) => {
                Err(StoreError::Unavailable(format!("{}: no connection within {} s", self.shared.place, WITHIN.as_secs())))
            }
            Err(error) => Err(self.shared.unavailable(&error)),
        }
    }

    /// Whether the server keeps what it acknowledges; and the tables.
    async fn prepare(&self) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let failed = |error: tokio_postgres::Error| self.shared.unavailable(&error);
        let fsync: String = client.query_typed_one("SHOW fsync", &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        if fsync != "on" && !self.relaxed {
            return Err(StoreError::Unavailable(format!(
                "{}: the server runs with `fsync = {}` and may lose what it acknowledged; turn it on, or take the risk with `store.durability: relaxed`",
                self.shared.place,
                fsync.escape_debug()
            )));
        }
        client.query_typed("SELECT pg_advisory_lock($1)", &[(&MIGRATION_LOCK, Type::INT8)]).await.map_err(failed)?;
        let migrated = async {
            client.batch_execute("CREATE SCHEMA IF NOT EXISTS attache").await.map_err(failed)?;
            let mut runner = embedded::migrations::runner();
            runner.set_migration_table_name("attache.migrations");
            runner.run_async(&mut **client).await.map_err(|error| {
                let words = error.to_string().escape_debug().to_string();
                StoreError::Damaged(format!(
                    "{}: the tables in the schema `attache` are not those of this version ({words}); a newer Attaché may have made them",
                    self.shared.place
                ))
            })
        };
        let migrated = migrated.await.map(drop);
        client.query_typed("SELECT pg_advisory_unlock($1)", &[(&MIGRATION_LOCK, Type::INT8)]).await.map_err(failed)?;
        migrated
    }

    async fn get_owned(&self, kind: Kind, key: Vec<u8>) -> Result<Option<Stored>, StoreError> {
        let client = self.client().await?;
        let query = "SELECT version, value FROM attache.records WHERE kind = $1 AND key = $2";
        let row = within(client.query_typed_opt(query, &[(&kind.number(), Type::INT2), (&key, Type::BYTEA)])).await;
        match row.map_err(|error| self.lost(&error))? {
            Some(row) => Ok(Some(Stored { version: batch::version(&row, 0)?, value: batch::bytes(&row, 1)? })),
            None => Ok(None),
        }
    }

    async fn scan_owned(&self, kind: Kind, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize) -> Result<Scanned, StoreError> {
        let client = self.client().await?;
        let query = "SELECT key, version, value FROM attache.records \
                     WHERE kind = $1 AND key >= $2 AND ($3::bytea IS NULL OR key < $3) AND ($4::bytea IS NULL OR key > $4) ORDER BY key LIMIT $5";
        let end = end_of(&prefix);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = within(client.query_typed(
            query,
            &[(&kind.number(), Type::INT2), (&prefix, Type::BYTEA), (&end, Type::BYTEA), (&after, Type::BYTEA), (&limit, Type::INT8)],
        ))
        .await;
        let rows = rows.map_err(|error| self.lost(&error))?;
        rows.iter()
            .map(|row| Ok((batch::bytes(row, 0)?, Stored { version: batch::version(row, 1)?, value: batch::bytes(row, 2)? })))
            .collect()
    }

    async fn write_owned(&self, batch: Vec<Write>) -> Result<Vec<u64>, StoreError> {
        check_sizes(&batch)?;
        self.shared.check()?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut client = self.client().await?;
        // Its own task, so that a caller who goes away leaves no transaction half way on a connection that the next one takes.
        let (shared, relaxed) = (Arc::clone(&self.shared), self.relaxed);
        let task = tokio::spawn(async move {
            let outcome = tokio::time::timeout(WITHIN * 2, batch::write(&mut client, &batch, &shared, relaxed)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(StoreError::Unavailable(format!("{}: a write was not answered", shared.place))));
            match &outcome {
                Ok((_, changes)) => changes.iter().for_each(|change| drop(shared.changes.send(change.clone()))),
                // Nobody can say in what state it is.
                Err(StoreError::Unavailable(_)) => drop(deadpool_postgres::Object::take(client)),
                Err(_) => {}
            }
            outcome.map(|(versions, _)| versions)
        });
        task.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a write broke off".into())))
    }

    async fn lease_owned(&self, key: Vec<u8>, holder: Holder, ttl: Duration) -> Result<Lease, StoreError> {
        let client = self.client().await?;
        let query = "INSERT INTO attache.leases AS held (key, holder, until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) \
                     ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until \
                     WHERE held.holder = excluded.holder OR held.until < clock_timestamp() RETURNING true";
        let (holder, seconds) = (holder.to_vec(), ttl.as_secs_f64());
        let taken = within(client.query_typed_opt(query, &[(&key, Type::BYTEA), (&holder, Type::BYTEA), (&seconds, Type::FLOAT8)])).await;
        if taken.map_err(|error| self.lost(&error))?.is_some() {
            return Ok(Lease::Held);
        }
        let query = "SELECT extract(epoch FROM until - clock_timestamp())::float8 FROM attache.leases WHERE key = $1";
        let left = within(client.query_typed_opt(query, &[(&key, Type::BYTEA)])).await.map_err(|error| self.lost(&error))?;
        let left: f64 = left.and_then(|row| row.try_get(0).ok()).unwrap_or_default();
        Ok(Lease::Taken { left: Duration::from_secs_f64(left.clamp(0.0, ttl.as_secs_f64())) })
    }

    async fn release_owned(&self, key: Vec<u8>, holder: Holder) -> Result<(), StoreError> {
        let client = self.client().await?;
        let query = "DELETE FROM attache.leases WHERE key = $1 AND holder = $2";
        let holder = holder.to_vec();
        within(client.query_typed(query, &[(&key, Type::BYTEA), (&holder, Type::BYTEA)])).await.map(drop).map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &Unanswered) -> StoreError {
        match error {
            Unanswered::Late => StoreError::Unavailable(format!("{}: no answer within {} s", self.shared.place, WITHIN.as_secs())),
            Unanswered::Failed(error) => self.shared.unavailable(error),
        }
    }
}

/// Why a query has no answer.
enum Unanswered {
    Late,
    Failed(tokio_postgres::Error),
}

async fn within<T>(query: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Unanswered> {
    match tokio::time::timeout(WITHIN, query).await {
        Ok(answer) => answer.map_err(Unanswered::Failed),
        Err(_) => Err(Unanswered::Late),
    }
}

impl Store for PostgresStore {
    fn get(&self, kind: Kind, key: &[u8]) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        self.get_owned(kind, key.to_vec()).boxed()
    }

    fn write(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        self.write_owned(batch).boxed()
    }

    fn scan(&self, kind: Kind, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> BoxFuture<'_, Result<Scanned, StoreError>> {
        self.scan_owned(kind, prefix.to_vec(), after.map(<[u8]>::to_vec), limit).boxed()
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.shared.check()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn lease(&self, key: &[u8], holder: Holder, ttl: Duration) -> BoxFuture<'_, Result<Lease, StoreError>> {
        self.lease_owned(key.to_vec(), holder, ttl).boxed()
    }

    fn release(&self, key: &[u8], holder: Holder) -> BoxFuture<'_, Result<(), StoreError>> {
        self.release_owned(key.to_vec(), holder).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.shared.closed.store(true, Ordering::Relaxed);
            if let Some(channel) = self.channel.lock().unwrap_or_else(PoisonError::into_inner).take() {
                channel.abort();
            }
            self.pool.close();
            Ok(())
        }
        .boxed()
    }
}
