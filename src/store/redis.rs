//! The store on a Redis that runs already, shared by as many replicas as there are.
//!
//! A record is a hash of its version and its sealed bytes, each kind has an index of its keys, and a batch is one script, which Redis runs whole or
//! not at all. Redis must be told to keep what it acknowledges (`durability.rs`): by default it does not. All names have one hash tag, so that they
//! stay together. Deliberately absent: Redis Cluster, and any retry of a write whose answer was lost: it may have been done.

mod channel;
mod durability;

use crate::base::ids::random_bytes;
use crate::base::secret::Secret;
use crate::store::{Change, Expect, Holder, Kind, Lease, Scanned, Store, StoreError, Stored, WATCH_QUEUE_MAX, Write, check_sizes, end_of};
use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, Cmd, IntoConnectionInfo, Pipeline, RedisError, TlsCertificates, Value};
use durability::Kept;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// What all names begin with; the braces are the hash tag.
const PREFIX: &str = "{attache}:";
const WRITE: &str = include_str!("redis/write.lua");
const SCAN: &str = include_str!("redis/scan.lua");
const LEASE: &str = include_str!("redis/lease.lua");
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0";

const CONNECT_WITHIN: Duration = Duration::from_secs(4);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Connections for writes where each waits for the disk: one that waits holds up its connection.
const WAITING_MAX: usize = 16;

/// A Redis URL, `redis://` or `rediss://`, with `ca` as the one parameter of our own.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    url: Secret,
    /// `?ca=FILE`: whom to trust in place of the machine's roots.
    pub ca: Option<PathBuf>,
    place: String,
    db: i64,
}

impl RedisUrl {
    /// # Errors
    /// When the text is none; the words do not repeat it.
    pub fn parse(text: &Secret) -> Result<RedisUrl, &'static str> {
        const SAID: &str = "expected a URL like `redis://user:password@host:6379/0`, or `rediss://` for TLS";
        let mut url = url::Url::parse(text.expose()).map_err(|_| SAID)?;
        if !matches!(url.scheme(), "redis" | "rediss") || url.host_str().is_none() {
            return Err(SAID);
        }
        let (mut ca, mut others) = (None, Vec::new());
        for (name, value) in url.query_pairs().into_owned() {
            if name == "ca" { ca = Some(PathBuf::from(value)) } else { others.push((name, value)) }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let info = url.as_str().into_connection_info().map_err(|_| SAID)?;
        let place = format!("Redis at {}:{}{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(6379), url.path());
        Ok(RedisUrl { url: Secret::new(url.as_str()), ca, place, db: info.redis_settings().db() })
    }
}

/// Never its password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisUrl").field(&self.place).finish()
    }
}

/// Records in Redis.
pub struct RedisStore {
    shared: Arc<Shared>,
    channel: Mutex<Option<JoinHandle<()>>>,
}

/// What the store, its writes and its channel share.
struct Shared {
    client: Client,
    connections: Vec<ConnectionManager>,
    next: AtomicUsize,
    place: String,
    /// Where changes are told: channels know no databases.
    channel: String,
    me: String,
    /// `durability: relaxed`.
    relaxed: bool,
    kept: Mutex<Kept>,
    /// Made with the first record; another one, or none, means that the records are not those that were here.
    generation: Mutex<Option<String>>,
    changes: broadcast::Sender<Change>,
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

    /// The server's words are escaped: it could be anybody's.
    fn unavailable(&self, error: &RedisError) -> StoreError {
        StoreError::Unavailable(format!("{}: {}", self.place, error.to_string().escape_debug()))
    }

    fn tell_doubt(&self) {
        for kind in Kind::ALL {
            let _ = self.changes.send(Change::anything(kind));
        }
    }

    fn connection(&self) -> Option<ConnectionManager> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections.get(next % self.connections.len().max(1)).cloned()
    }

    async fn run<T: ::redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.check()?;
        self.run_unchecked(command).await
    }

    async fn run_unchecked<T: ::redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.connection().ok_or_else(|| StoreError::Unavailable("the store is closed".into()))?;
        match tokio::time::timeout(ANSWER_WITHIN, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| self.unavailable(&error)),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> StoreError {
        StoreError::Unavailable(format!("{}: no answer within {} s", self.place, ANSWER_WITHIN.as_secs()))
    }

    /// The batch's script, and where the server does not keep what it acknowledges at once, the wait until it has.
    async fn write(&self, batch: &[Write]) -> Result<(Vec<u64>, Vec<Change>), StoreError> {
        let mut command = ::redis::cmd("EVAL");
        command.arg(WRITE).arg(batch.len() * 2 + 1);
        for write in batch {
            command.arg(record_name(write.kind, &write.key)).arg(index_name(write.kind));
        }
        command.arg(count_name()).arg(&self.me).arg(&self.channel);
        for write in batch {
            let expected = match write.expect {
                Expect::Any => "any".to_owned(),
                Expect::Absent => "absent".to_owned(),
                Expect::Version(version) => version.to_string(),
            };
            let (has_value, value) = write.value.as_deref().map_or(("0", &[][..]), |value| ("1", value));
            command.arg(write.kind.number()).arg(&write.key).arg(expected).arg(has_value).arg(value);
        }
        let waits = *self.kept.lock().unwrap_or_else(PoisonError::into_inner) == Kept::ByWaiting;
        let answer: Option<Vec<String>> = if waits {
            let mut pipeline = Pipeline::new();
            pipeline.add_command(command).cmd("WAITAOF").arg(1).arg(0).arg(4_000);
            let mut connection = self.connection().ok_or_else(|| StoreError::Unavailable("the store is closed".into()))?;
            let (answer, (local, _)): (Option<Vec<String>>, (i64, i64)) =
                match tokio::time::timeout(ANSWER_WITHIN, pipeline.query_async(&mut connection)).await {
                    Ok(answer) => answer.map_err(|error| self.unavailable(&error))?,
                    Err(_) => return Err(self.late()),
                };
            if answer.is_some() && local < 1 {
                return Err(StoreError::Unavailable(format!("{}: a write was not on its disk in time", self.place)));
            }
            answer
        } else {
            self.run(&command).await?
        };
        let Some(answer) = answer else { return Err(StoreError::Conflict) };
        let versions: Vec<u64> = answer.iter().map(|version| version.parse().unwrap_or_default()).collect();
        let change = |(write, version): (&Write, &u64)| Change {
            kind: write.kind,
            key: write.key.clone(),
            version: (*version > 0).then_some(*version),
        };
        let told = batch.iter().zip(&versions).zip(&answer).filter(|(_, said)| !said.is_empty());
        let changes = told.map(|(write, _)| change(write)).collect();
        Ok((versions, changes))
    }
}

fn record_name(kind: Kind, key: &[u8]) -> Vec<u8> {
    [format!("{PREFIX}{}:", kind.number()).as_bytes(), key].concat()
}

fn index_name(kind: Kind) -> String {
    format!("{PREFIX}index:{}", kind.number())
}

fn count_name() -> String {
    format!("{PREFIX}changes")
}

fn lease_name(key: &[u8]) -> Vec<u8> {
    [format!("{PREFIX}lease:").as_bytes(), key].concat()
}

impl RedisStore {
    /// Connects, sees that the server keeps what it acknowledges, and begins to follow changes.
    ///
    /// # Errors
    /// When the server is out of reach or may lose records.
    pub async fn open(url: &RedisUrl, relaxed: bool) -> Result<Arc<RedisStore>, StoreError> {
        let broken = |error: RedisError| StoreError::Unavailable(format!("{}: {}", url.place, error.to_string().escape_debug()));
        let client = match &url.ca {
            None => Client::open(url.url.expose()).map_err(broken)?,
            Some(path) => {
                let pem = tokio::fs::read(path).await.map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))?;
                Client::build_with_tls(url.url.expose(), TlsCertificates { client_tls: None, root_cert: Some(pem) }).map_err(broken)?
            }
        };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_secs(1));
        let connect =
            async || match tokio::time::timeout(CONNECT_WITHIN * 2, client.get_connection_manager_with_config(config.clone())).await {
                Ok(connected) => connected.map_err(broken),
                Err(_) => Err(StoreError::Unavailable(format!("{}: no connection within {} s", url.place, CONNECT_WITHIN.as_secs()))),
            };
        let mut connections = vec![connect().await?];
        let kept = match connections.first_mut() {
            Some(first) => durability::judge(first, relaxed, &url.place).await?,
            None => Kept::Relaxed,
        };
        if kept == Kept::ByWaiting {
            while connections.len() < WAITING_MAX {
                connections.push(connect().await?);
            }
        }
        let shared = Arc::new(Shared {
            client,
            connections,
            next: AtomicUsize::new(0),
            place: url.place.clone(),
            channel: format!("{PREFIX}changes:{}", url.db),
            me: random_bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect(),
            relaxed,
            kept: Mutex::new(kept),
            generation: Mutex::new(None),
            changes: broadcast::channel(WATCH_QUEUE_MAX).0,
            down: Mutex::new(None),
            closed: AtomicBool::new(false),
        });
        let channel = channel::start(Arc::clone(&shared)).await?;
        Ok(Arc::new(RedisStore { shared, channel: Mutex::new(Some(channel)) }))
    }

    async fn get_owned(&self, kind: Kind, key: Vec<u8>) -> Result<Option<Stored>, StoreError> {
        let mut command = ::redis::cmd("HMGET");
        command.arg(record_name(kind, &key)).arg("v").arg("d");
        let (version, value): (Option<u64>, Option<Vec<u8>>) = self.shared.run(&command).await?;
        Ok(version.zip(value).map(|(version, value)| Stored { version, value }))
    }

    async fn scan_owned(&self, kind: Kind, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize) -> Result<Scanned, StoreError> {
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => [b"(", after.as_slice()].concat(),
            None => [b"[", prefix.as_slice()].concat(),
        };
        let to = end_of(&prefix).map_or_else(|| b"+".to_vec(), |end| [b"(", end.as_slice()].concat());
        let mut command = ::redis::cmd("EVAL");
        command.arg(SCAN).arg(1).arg(index_name(kind)).arg(record_name(kind, b"")).arg(from).arg(to).arg(limit);
        let flat: Vec<Value> = self.shared.run(&command).await?;
        flat.chunks_exact(3)
            .map(|three| {
                let unfit = |_| StoreError::Damaged(format!("{}: a record of {} is of another form", self.shared.place, kind.name()));
                let [key, version, value] = three else { return Err(StoreError::Damaged("a scan's answer is of another form".into())) };
                let key: Vec<u8> = ::redis::from_redis_value(key.clone()).map_err(unfit)?;
                let version: u64 = ::redis::from_redis_value(version.clone()).map_err(unfit)?;
                let value: Vec<u8> = ::redis::from_redis_value(value.clone()).map_err(unfit)?;
                Ok((key, Stored { version, value }))
            })
            .collect()
    }

    async fn write_owned(&self, batch: Vec<Write>) -> Result<Vec<u64>, StoreError> {
        check_sizes(&batch)?;
        self.shared.check()?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // Its own task: a caller who goes away must not keep this process's watchers from hearing of what was done.
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let (versions, changes) = shared.write(&batch).await?;
            changes.into_iter().for_each(|change| drop(shared.changes.send(change)));
            Ok(versions)
        });
        task.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a write broke off".into())))
    }

    async fn lease_owned(&self, key: Vec<u8>, holder: Holder, ttl: Duration) -> Result<Lease, StoreError> {
        let mut command = ::redis::cmd("EVAL");
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg(LEASE).arg(1).arg(lease_name(&key)).arg(&holder).arg(millis);
        let left: u64 = self.shared.run(&command).await?;
        Ok(if left == 0 { Lease::Held } else { Lease::Taken { left: Duration::from_millis(left) } })
    }

    async fn release_owned(&self, key: Vec<u8>, holder: Holder) -> Result<(), StoreError> {
        let mut command = ::redis::cmd("EVAL");
        command.arg(RELEASE).arg(1).arg(lease_name(&key)).arg(&holder);
        self.shared.run::<i64>(&command).await.map(drop)
    }
}

impl Store for RedisStore {
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
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_its_place_and_not_its_password() {
        let parse = |text: &str| RedisUrl::parse(&Secret::new(text));
        let url = parse("rediss://attache:hunter2@cache.example.com:6380/3?ca=/etc/ca.pem").expect("a URL");
        assert_eq!((format!("{url:?}").as_str(), url.db), ("RedisUrl(\"Redis at cache.example.com:6380/3\")", 3));
        assert_eq!(url.ca.as_deref(), Some(std::path::Path::new("/etc/ca.pem")));
        for unfit in ["hunter2", "http://a", "redis://", "redis://h/notanumber"] {
            assert!(!parse(unfit).expect_err(unfit).contains("hunter2"));
        }
    }
}
