//! What every store must do, as tests that run on each: a new store adds one line to `stores!`.

use super::memory::MemoryStore;
use super::postgres::{PostgresOptions, PostgresStore, PostgresUrl};
use super::redis::{RedisStore, RedisUrl};
use super::sled::SledStore;
use super::{Change, Expect, KEY_LEN_MAX, Kind, Store, StoreError, Stored, VALUE_LEN_MAX, WATCH_QUEUE_MAX, Write};
use crate::base::secret::Secret;
use crate::upstream::TlsRoots;
use std::any::Any;
use std::sync::Arc;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

#[path = "../../tests/support/servers.rs"]
mod servers;

/// A fresh, empty store, and what must outlive it.
type Fresh = (Arc<dyn Store>, Box<dyn Any>);

/// `None`, said loudly, where its server is not there.
async fn memory() -> Option<Fresh> {
    Some((MemoryStore::new(), Box::new(())))
}

async fn sled() -> Option<Fresh> {
    let folder = tempfile::tempdir().expect("folder");
    Some((SledStore::open(&folder.path().join("store")).expect("opened"), Box::new(folder)))
}

async fn postgres() -> Option<Fresh> {
    let url = PostgresUrl::parse(&Secret::new(servers::postgres_url().await?)).expect("a URL");
    let tls = TlsRoots::with_roots(Vec::new()).client_config(&[]);
    let store = PostgresStore::open(&url, PostgresOptions { tls, relaxed: false }).await.expect("opened");
    Some((store, Box::new(())))
}

async fn redis() -> Option<Fresh> {
    let url = RedisUrl::parse(&Secret::new(servers::redis_url().await?)).expect("a URL");
    Some((RedisStore::open(&url, false).await.expect("opened"), Box::new(())))
}

macro_rules! stores {
    ($($store:ident),*) => { $(
        mod $store {
            #[tokio::test]
            async fn reads_back_what_was_written() { if let Some(fresh) = super::$store().await { super::reads_back_what_was_written(fresh).await } }
            #[tokio::test]
            async fn swaps_only_what_was_expected() { if let Some(fresh) = super::$store().await { super::swaps_only_what_was_expected(fresh).await } }
            #[tokio::test]
            async fn writes_a_batch_wholly_or_not_at_all() { if let Some(fresh) = super::$store().await { super::writes_a_batch_wholly_or_not_at_all(fresh).await } }
            #[tokio::test]
            async fn a_batch_sees_its_own_writes() { if let Some(fresh) = super::$store().await { super::a_batch_sees_its_own_writes(fresh).await } }
            #[tokio::test]
            async fn deletes_and_begins_anew() { if let Some(fresh) = super::$store().await { super::deletes_and_begins_anew(fresh).await } }
            #[tokio::test]
            async fn scans_in_order_within_its_bounds() { if let Some(fresh) = super::$store().await { super::scans_in_order_within_its_bounds(fresh).await } }
            #[tokio::test]
            async fn tells_watchers_in_order() { if let Some(fresh) = super::$store().await { super::tells_watchers_in_order(fresh).await } }
            #[tokio::test]
            async fn tells_a_slow_watcher_that_it_lagged() { if let Some(fresh) = super::$store().await { super::tells_a_slow_watcher_that_it_lagged(fresh).await } }
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn loses_no_concurrent_increment() { if let Some(fresh) = super::$store().await { super::loses_no_concurrent_increment(fresh).await } }
            #[tokio::test]
            async fn takes_any_bytes_up_to_its_limits() { if let Some(fresh) = super::$store().await { super::takes_any_bytes_up_to_its_limits(fresh).await } }
            #[tokio::test]
            async fn a_dropped_write_is_done_or_not() { if let Some(fresh) = super::$store().await { super::a_dropped_write_is_done_or_not(fresh).await } }
            #[tokio::test]
            async fn refuses_all_once_closed() { if let Some(fresh) = super::$store().await { super::refuses_all_once_closed(fresh).await } }
        }
    )* };
}

stores!(memory, sled, postgres, redis);

pub(super) fn put(kind: Kind, key: &[u8], expect: Expect, value: &[u8]) -> Write {
    Write { kind, key: key.to_vec(), expect, value: Some(value.to_vec()) }
}

pub(super) fn delete(kind: Kind, key: &[u8], expect: Expect) -> Write {
    Write { kind, key: key.to_vec(), expect, value: None }
}

async fn get(store: &dyn Store, kind: Kind, key: &[u8]) -> Option<(u64, Vec<u8>)> {
    store.get(kind, key).await.expect("read").map(|Stored { version, value }| (version, value))
}

fn conflicts(result: Result<Vec<u64>, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict))
}

async fn reads_back_what_was_written((store, _kept): Fresh) {
    assert_eq!(get(&*store, Kind::Connection, b"k").await, None);
    assert_eq!(store.write(vec![]).await.expect("nothing to do"), Vec::<u64>::new());
    assert_eq!(store.write(vec![put(Kind::Connection, b"k", Expect::Any, b"one")]).await.expect("written"), vec![1]);
    assert_eq!(store.write(vec![put(Kind::Connection, b"k", Expect::Any, b"two")]).await.expect("written"), vec![2]);
    assert_eq!(get(&*store, Kind::Connection, b"k").await, Some((2, b"two".to_vec())));
    // Kinds are apart, and a key is not its prefix.
    assert_eq!(get(&*store, Kind::Session, b"k").await, None);
    assert_eq!(get(&*store, Kind::Connection, b"").await, None);
    assert_eq!(get(&*store, Kind::Connection, b"k\0").await, None);
    store.ready().expect("ready");
}

async fn swaps_only_what_was_expected((store, _kept): Fresh) {
    let kind = Kind::Connection;
    assert!(conflicts(store.write(vec![put(kind, b"k", Expect::Version(1), b"x")]).await));
    assert!(conflicts(store.write(vec![put(kind, b"k", Expect::Version(0), b"x")]).await));
    assert_eq!(store.write(vec![put(kind, b"k", Expect::Absent, b"one")]).await.expect("written"), vec![1]);
    assert!(conflicts(store.write(vec![put(kind, b"k", Expect::Absent, b"x")]).await));
    assert!(conflicts(store.write(vec![put(kind, b"k", Expect::Version(2), b"x")]).await));
    assert_eq!(store.write(vec![put(kind, b"k", Expect::Version(1), b"two")]).await.expect("written"), vec![2]);
    assert!(conflicts(store.write(vec![delete(kind, b"k", Expect::Version(1))]).await));
    assert!(conflicts(store.write(vec![delete(kind, b"k", Expect::Absent)]).await));
    assert_eq!(get(&*store, kind, b"k").await, Some((2, b"two".to_vec())));
    assert_eq!(store.write(vec![delete(kind, b"k", Expect::Version(2))]).await.expect("deleted"), vec![0]);
    assert_eq!(get(&*store, kind, b"k").await, None);
}

async fn writes_a_batch_wholly_or_not_at_all((store, _kept): Fresh) {
    store.write(vec![put(Kind::Connection, b"old", Expect::Any, b"1")]).await.expect("written");
    let mut watcher = store.watch();
    let failing = vec![
        put(Kind::Connection, b"new", Expect::Absent, b"x"),
        put(Kind::Connection, b"old", Expect::Version(1), b"x"),
        delete(Kind::Connection, b"old", Expect::Any),
        put(Kind::Intent, b"new", Expect::Version(7), b"x"),
    ];
    assert!(conflicts(store.write(failing).await));
    assert_eq!(get(&*store, Kind::Connection, b"new").await, None);
    assert_eq!(get(&*store, Kind::Connection, b"old").await, Some((1, b"1".to_vec())));
    assert_eq!(watcher.try_recv(), Err(TryRecvError::Empty));
    let passing = vec![
        put(Kind::Connection, b"new", Expect::Absent, b"2"),
        delete(Kind::Connection, b"old", Expect::Version(1)),
        put(Kind::Intent, b"new", Expect::Any, b"3"),
    ];
    assert_eq!(store.write(passing).await.expect("written"), vec![1, 0, 1]);
    assert_eq!(get(&*store, Kind::Connection, b"new").await, Some((1, b"2".to_vec())));
    assert_eq!(get(&*store, Kind::Connection, b"old").await, None);
    assert_eq!(get(&*store, Kind::Intent, b"new").await, Some((1, b"3".to_vec())));
}

async fn a_batch_sees_its_own_writes((store, _kept): Fresh) {
    let kind = Kind::Outbox;
    let batch = vec![
        put(kind, b"k", Expect::Absent, b"1"),
        put(kind, b"k", Expect::Version(1), b"2"),
        delete(kind, b"k", Expect::Version(2)),
        put(kind, b"k", Expect::Absent, b"3"),
    ];
    assert_eq!(store.write(batch.clone()).await.expect("written"), vec![1, 2, 0, 1]);
    assert_eq!(get(&*store, kind, b"k").await, Some((1, b"3".to_vec())));
    assert!(conflicts(store.write(batch).await));
    assert!(conflicts(store.write(vec![put(kind, b"l", Expect::Any, b"1"), put(kind, b"l", Expect::Absent, b"2")]).await));
    assert_eq!(get(&*store, kind, b"l").await, None);
}

async fn deletes_and_begins_anew((store, _kept): Fresh) {
    let kind = Kind::Session;
    assert_eq!(store.write(vec![delete(kind, b"k", Expect::Any)]).await.expect("nothing there"), vec![0]);
    assert_eq!(store.write(vec![delete(kind, b"k", Expect::Absent)]).await.expect("nothing there"), vec![0]);
    for _ in 0..2 {
        // The version starts over, because the key was absent.
        assert_eq!(store.write(vec![put(kind, b"k", Expect::Absent, b"v")]).await.expect("written"), vec![1]);
        assert_eq!(store.write(vec![put(kind, b"k", Expect::Any, b"v")]).await.expect("written"), vec![2]);
        assert_eq!(store.write(vec![delete(kind, b"k", Expect::Any)]).await.expect("deleted"), vec![0]);
        assert_eq!(get(&*store, kind, b"k").await, None);
    }
}

async fn scans_in_order_within_its_bounds((store, _kept): Fresh) {
    let kind = Kind::Connection;
    for key in ["b\0z", "a", "b\0a", "b", "c", "b\0m", "bb"] {
        store.write(vec![put(kind, key.as_bytes(), Expect::Any, key.as_bytes())]).await.expect("written");
        store.write(vec![put(Kind::Session, b"b\0other", Expect::Any, b"other")]).await.expect("written");
    }
    let check = async |prefix: &str, after: Option<&str>, limit: usize, expected: &[&str]| {
        let found = store.scan(kind, prefix.as_bytes(), after.map(str::as_bytes), limit).await.expect("scanned");
        assert!(found.iter().all(|(key, stored)| *key == stored.value && stored.version == 1));
        let keys: Vec<_> = found.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
        assert_eq!(keys, expected, "{prefix:?} after {after:?}, up to {limit}");
    };
    check("", None, 99, &["a", "b", "b\0a", "b\0m", "b\0z", "bb", "c"]).await;
    check("", None, 2, &["a", "b"]).await;
    check("", None, 0, &[]).await;
    check("", Some("b\0m"), 2, &["b\0z", "bb"]).await;
    check("", Some("c"), 9, &[]).await;
    check("b\0", None, 9, &["b\0a", "b\0m", "b\0z"]).await;
    check("b\0", Some("b\0a"), 1, &["b\0m"]).await;
    // An `after` that is not there, before the prefix, or past it.
    check("b\0", Some("b\0b"), 9, &["b\0m", "b\0z"]).await;
    check("b\0", Some("a"), 9, &["b\0a", "b\0m", "b\0z"]).await;
    check("b\0", Some("bb"), 9, &[]).await;
    check("x", None, 9, &[]).await;
}

async fn tells_watchers_in_order((store, _kept): Fresh) {
    store.write(vec![put(Kind::Connection, b"before", Expect::Any, b"v")]).await.expect("written");
    let (mut one, mut two) = (store.watch(), store.watch());
    store.write(vec![put(Kind::Connection, b"a", Expect::Any, b"v"), put(Kind::Intent, b"b", Expect::Any, b"v")]).await.expect("written");
    store.write(vec![put(Kind::Connection, b"a", Expect::Any, b"v")]).await.expect("written");
    assert!(conflicts(store.write(vec![put(Kind::Connection, b"a", Expect::Absent, b"v")]).await));
    // Deleting what is not there is no change.
    store.write(vec![delete(Kind::Connection, b"a", Expect::Any), delete(Kind::Connection, b"x", Expect::Any)]).await.expect("deleted");
    let change = |kind, key: &[u8], version| Change { kind, key: key.to_vec(), version };
    let expected = [
        change(Kind::Connection, b"a", Some(1)),
        change(Kind::Intent, b"b", Some(1)),
        change(Kind::Connection, b"a", Some(2)),
        change(Kind::Connection, b"a", None),
    ];
    for watcher in [&mut one, &mut two] {
        for change in &expected {
            assert_eq!(watcher.try_recv().as_ref(), Ok(change), "told before the write's own answer");
        }
        assert_eq!(watcher.try_recv(), Err(TryRecvError::Empty));
    }
}

async fn tells_a_slow_watcher_that_it_lagged((store, _kept): Fresh) {
    let mut watcher = store.watch();
    let batch: Vec<_> =
        (0..WATCH_QUEUE_MAX + 10).map(|number| put(Kind::Outbox, number.to_string().as_bytes(), Expect::Any, b"v")).collect();
    store.write(batch).await.expect("written");
    assert_eq!(watcher.recv().await, Err(RecvError::Lagged(10)));
    assert_eq!(watcher.recv().await.expect("the oldest that is left").key, b"10");
}

async fn loses_no_concurrent_increment((store, _kept): Fresh) {
    const TASKS: u64 = 64;
    const EACH: u64 = 3;
    store.write(vec![put(Kind::Connection, b"sum", Expect::Absent, &0u64.to_le_bytes())]).await.expect("written");
    let increment = |store: Arc<dyn Store>, task: u64| async move {
        for number in 0..EACH {
            loop {
                let (version, value) = get(&*store, Kind::Connection, b"sum").await.expect("there");
                let sum = u64::from_le_bytes(value.try_into().expect("eight bytes")) + 1;
                let swap = put(Kind::Connection, b"sum", Expect::Version(version), &sum.to_le_bytes());
                // What goes with a swap that failed must not be there.
                let along = put(Kind::Outbox, format!("{task}/{number}").as_bytes(), Expect::Absent, b"done");
                match store.write(vec![along, swap]).await {
                    Ok(versions) => break assert_eq!(versions, vec![1, version + 1]),
                    Err(StoreError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(increment(store.clone(), task))).collect();
    for task in tasks {
        task.await.expect("done");
    }
    let (version, value) = get(&*store, Kind::Connection, b"sum").await.expect("there");
    assert_eq!((version, value), (TASKS * EACH + 1, (TASKS * EACH).to_le_bytes().to_vec()));
    assert_eq!(store.scan(Kind::Outbox, b"", None, 999).await.expect("scanned").len() as u64, TASKS * EACH);
}

async fn takes_any_bytes_up_to_its_limits((store, _kept): Fresh) {
    let (key, value) = (vec![0xff; KEY_LEN_MAX], vec![0; VALUE_LEN_MAX]);
    let write = |key: &[u8], value: &[u8]| {
        store.write(vec![put(Kind::Connection, b"with it", Expect::Any, b"v"), put(Kind::Connection, key, Expect::Any, value)])
    };
    write(&key, &value).await.expect("written");
    write(b"", b"").await.expect("written");
    assert_eq!(get(&*store, Kind::Connection, &key).await, Some((1, value.clone())));
    assert_eq!(get(&*store, Kind::Connection, b"").await, Some((1, vec![])));
    for (key, value) in [([&key[..], b"k"].concat(), vec![]), (vec![], [&value[..], b"v"].concat())] {
        assert!(matches!(write(&key, &value).await, Err(StoreError::Unavailable(why)) if why.contains("over the limit")));
    }
    assert_eq!(get(&*store, Kind::Connection, b"with it").await, Some((2, b"v".to_vec())));
}

async fn a_dropped_write_is_done_or_not((store, _kept): Fresh) {
    for number in 0..50u32 {
        let key = number.to_string();
        let batch =
            vec![put(Kind::Connection, key.as_bytes(), Expect::Absent, b"v"), put(Kind::Intent, key.as_bytes(), Expect::Absent, b"v")];
        let mut write = store.write(batch);
        // One poll, then gone.
        let _ = futures_util::poll!(&mut write);
        drop(write);
    }
    // Behind all of them in the queue.
    store.write(vec![put(Kind::Session, b"last", Expect::Any, b"v")]).await.expect("written");
    let connections = store.scan(Kind::Connection, b"", None, 999).await.expect("scanned");
    let intents = store.scan(Kind::Intent, b"", None, 999).await.expect("scanned");
    assert_eq!(connections, intents);
}

async fn refuses_all_once_closed((store, _kept): Fresh) {
    store.write(vec![put(Kind::Connection, b"k", Expect::Any, b"v")]).await.expect("written");
    store.close().await.expect("closed");
    store.close().await.expect("closed already");
    assert!(matches!(store.get(Kind::Connection, b"k").await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.scan(Kind::Connection, b"", None, 9).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.write(vec![put(Kind::Connection, b"k", Expect::Any, b"v")]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.ready(), Err(StoreError::Unavailable(_))));
}
