//! Typed, sealed records on top of any [`Store`]: what the rest of the program reads and writes.

use crate::base::ids::ConnectionKey;
use crate::store::seal::Sealer;
use crate::store::{Change, Connection, Expect, Intent, Kind, Store, StoreError, Stored, Write, codec};
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many records one scan of a whole kind takes at a time.
const PAGE: usize = 256;

/// How often a deletion reads anew because another writer came between.
const DELETE_TRIES: usize = 16;

/// A record and the version it was read at, for the compare-and-swap of its next write.
#[derive(Debug, Clone, PartialEq)]
pub struct Keyed<T> {
    pub version: u64,
    pub record: T,
}

/// The typed store. Clones share it.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn Store>,
    sealer: Sealer,
}

impl Records {
    pub fn new(store: Arc<dyn Store>, sealer: Sealer) -> Self {
        Records { store, sealer }
    }

    pub async fn connection(&self, key: &ConnectionKey) -> Result<Option<Keyed<Connection>>, StoreError> {
        match self.store.get(Kind::Connection, &key.to_bytes()).await? {
            Some(stored) => self.open_connection(key.clone(), &stored).map(Some),
            None => Ok(None),
        }
    }

    /// Writes the connection; answers its new version.
    pub async fn put_connection(&self, connection: &Connection, expect: Expect) -> Result<u64, StoreError> {
        let write = self.connection_write(connection, expect)?;
        self.write_first(vec![write]).await
    }

    /// The end of a rotation: writes the connection and deletes its intent in one batch. Answers the connection's new version.
    pub async fn settle(&self, connection: &Connection, expect: Expect) -> Result<u64, StoreError> {
        let write = self.connection_write(connection, expect)?;
        self.write_first(vec![write, intent_deletion(connection.key.to_bytes())]).await
    }

    /// Deletes the connection and whatever intent was left of it; answers what was deleted, for its revocation at the provider.
    pub async fn delete_connection(&self, key: &ConnectionKey) -> Result<Option<Connection>, StoreError> {
        let bytes = key.to_bytes();
        for _ in 0..DELETE_TRIES {
            let found = self.connection(key).await?;
            let expect = found.as_ref().map_or(Expect::Absent, |keyed| Expect::Version(keyed.version));
            let deletion = Write { kind: Kind::Connection, key: bytes.clone(), expect, value: None };
            match self.store.write(vec![deletion, intent_deletion(bytes.clone())]).await {
                Ok(_) => return Ok(found.map(|keyed| keyed.record)),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// Up to `limit` connections in the order of their keys, of one provider or of all, after the key `after`.
    pub async fn connections(
        &self,
        provider: Option<&str>,
        after: Option<&ConnectionKey>,
        limit: usize,
    ) -> Result<Vec<Keyed<Connection>>, StoreError> {
        let prefix = provider.map(|provider| [provider.as_bytes(), &[0]].concat()).unwrap_or_default();
        let after = after.map(ConnectionKey::to_bytes);
        let found = self.store.scan(Kind::Connection, &prefix, after.as_deref(), limit).await?;
        found.iter().map(|(key, stored)| self.open_connection(parse_key(Kind::Connection, key)?, stored)).collect()
    }

    /// Marks that a token call begins. Whatever intent stood there before is replaced: the caller holds the connection's single flight.
    pub async fn begin_intent(&self, intent: &Intent) -> Result<(), StoreError> {
        let key = intent.key.to_bytes();
        let value = self.sealer.seal(Kind::Intent, &key, &codec::encode_intent(intent)?)?;
        self.store.write(vec![Write { kind: Kind::Intent, key, expect: Expect::Any, value: Some(value) }]).await.map(drop)
    }

    /// Takes the mark back, because the call is known to have changed nothing.
    pub async fn clear_intent(&self, key: &ConnectionKey) -> Result<(), StoreError> {
        self.store.write(vec![intent_deletion(key.to_bytes())]).await.map(drop)
    }

    /// All marks that stand: at start, the calls whose outcome a crash swallowed.
    pub async fn intents(&self) -> Result<Vec<Intent>, StoreError> {
        let mut intents = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.scan(Kind::Intent, &[], after.as_deref(), PAGE).await?;
            for (key, stored) in &page {
                let plain = self.sealer.open(Kind::Intent, key, &stored.value)?;
                intents.push(codec::decode_intent(parse_key(Kind::Intent, key)?, &plain)?);
            }
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => return Ok(intents),
            }
        }
    }

    /// Opens every connection and intent once: a start with a key missing, or with records of a newer attache, is refused here, not at
    /// some end user's call (contract §3).
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut after: Option<ConnectionKey> = None;
        loop {
            let page = self.connections(None, after.as_ref(), PAGE).await?;
            match page.into_iter().next_back() {
                Some(last) => after = Some(last.record.key),
                None => return self.intents().await.map(drop),
            }
        }
    }

    /// Changes of every kind from now on.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.store.watch()
    }

    /// Whether a write could be taken now.
    pub fn ready(&self) -> Result<(), StoreError> {
        self.store.ready()
    }

    pub async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }

    fn open_connection(&self, key: ConnectionKey, stored: &Stored) -> Result<Keyed<Connection>, StoreError> {
        let plain = self.sealer.open(Kind::Connection, &key.to_bytes(), &stored.value)?;
        Ok(Keyed { version: stored.version, record: codec::decode_connection(key, &plain)? })
    }

    fn connection_write(&self, connection: &Connection, expect: Expect) -> Result<Write, StoreError> {
        let key = connection.key.to_bytes();
        let value = self.sealer.seal(Kind::Connection, &key, &codec::encode_connection(connection)?)?;
        Ok(Write { kind: Kind::Connection, key, expect, value: Some(value) })
    }

    /// The version of the batch's first write.
    async fn write_first(&self, batch: Vec<Write>) -> Result<u64, StoreError> {
        let versions = self.store.write(batch).await?;
        versions.first().copied().ok_or_else(|| StoreError::Unavailable("the store answered no version".into()))
    }
}

fn intent_deletion(key: Vec<u8>) -> Write {
    Write { kind: Kind::Intent, key, expect: Expect::Any, value: None }
}

fn parse_key(kind: Kind, bytes: &[u8]) -> Result<ConnectionKey, StoreError> {
    ConnectionKey::from_bytes(bytes).ok_or_else(|| StoreError::Damaged(format!("a key of {} is no connection's key", kind.name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;
    use crate::store::codec::tests::full;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::SealingKey;

    fn key(provider: &str, end_user: &str) -> ConnectionKey {
        ConnectionKey::new(provider, end_user, "default")
    }

    fn records() -> (Arc<MemoryStore>, Records) {
        let store = MemoryStore::new();
        (store.clone(), Records::new(store, Sealer::new(&[SealingKey::generate()])))
    }

    #[tokio::test]
    async fn a_connection_is_kept_sealed_and_swapped_by_version() {
        let (store, records) = records();
        let connection = full(key("google", "megan"), "CANARY-1");
        assert_eq!(records.connection(&connection.key).await.expect("read"), None);
        assert_eq!(records.put_connection(&connection, Expect::Absent).await.expect("written"), 1);
        assert!(matches!(records.put_connection(&connection, Expect::Absent).await, Err(StoreError::Conflict)));
        assert_eq!(records.put_connection(&connection, Expect::Version(1)).await.expect("written"), 2);
        let read = records.connection(&connection.key).await.expect("read").expect("there");
        assert_eq!(read, Keyed { version: 2, record: connection.clone() });
        let raw = store.get(Kind::Connection, &connection.key.to_bytes()).await.expect("read").expect("there");
        assert!(!raw.value.windows(6).any(|bytes| bytes == b"CANARY"));
    }

    #[tokio::test]
    async fn records_swapped_in_the_store_do_not_open() {
        let (store, records) = records();
        let (megan, bob) = (full(key("google", "megan"), "m"), full(key("google", "bob"), "b"));
        records.put_connection(&megan, Expect::Any).await.expect("written");
        records.put_connection(&bob, Expect::Any).await.expect("written");
        let value = store.get(Kind::Connection, &bob.key.to_bytes()).await.expect("read").expect("there").value;
        let write = Write { kind: Kind::Connection, key: megan.key.to_bytes(), expect: Expect::Any, value: Some(value) };
        store.write(vec![write]).await.expect("written");
        assert!(matches!(records.connection(&megan.key).await, Err(StoreError::Damaged(_))));
        assert!(records.connection(&bob.key).await.is_ok());
    }

    #[tokio::test]
    async fn a_store_with_a_record_of_another_key_is_refused_at_start() {
        let (store, records) = records();
        records.check().await.expect("an empty store needs no key");
        for number in 0..=PAGE {
            records.put_connection(&full(key("google", &format!("{number:04}")), "t"), Expect::Absent).await.expect("written");
        }
        records.check().await.expect("all open");
        let other = SealingKey::generate();
        let sealed_otherwise = Records::new(store.clone(), Sealer::new(std::slice::from_ref(&other)));
        sealed_otherwise.put_connection(&full(key("google", "last"), "t"), Expect::Absent).await.expect("written");
        let error = records.check().await.expect_err("refused").to_string();
        assert!(error.contains(&other.id().to_string()) && error.contains("add that key"), "{error}");
        records.delete_connection(&key("google", "last")).await.expect_err("cannot tell what to revoke");
    }

    #[tokio::test]
    async fn settling_takes_the_intent_along_or_leaves_both() {
        let (_, records) = records();
        let connection = full(key("google", "megan"), "t");
        records.put_connection(&connection, Expect::Absent).await.expect("written");
        let intent = Intent { key: connection.key.clone(), begun_at: UnixMillis(7), version: 1 };
        records.begin_intent(&intent).await.expect("begun");
        assert!(matches!(records.settle(&connection, Expect::Version(9)).await, Err(StoreError::Conflict)));
        assert_eq!(records.intents().await.expect("read"), vec![intent.clone()]);
        assert_eq!(records.settle(&connection, Expect::Version(1)).await.expect("settled"), 2);
        assert_eq!(records.intents().await.expect("read"), vec![]);
        records.begin_intent(&intent).await.expect("begun");
        records.clear_intent(&intent.key).await.expect("cleared");
        records.clear_intent(&intent.key).await.expect("cleared again");
        assert_eq!(records.intents().await.expect("read"), vec![]);
    }

    #[tokio::test]
    async fn deleting_tells_what_was_there_and_takes_the_intent_along() {
        let (_, records) = records();
        let connection = full(key("google", "megan"), "t");
        assert_eq!(records.delete_connection(&connection.key).await.expect("deleted"), None);
        records.put_connection(&connection, Expect::Absent).await.expect("written");
        records.begin_intent(&Intent { key: connection.key.clone(), begun_at: UnixMillis(7), version: 1 }).await.expect("begun");
        assert_eq!(records.delete_connection(&connection.key).await.expect("deleted"), Some(connection.clone()));
        assert_eq!(records.connection(&connection.key).await.expect("read"), None);
        assert_eq!(records.intents().await.expect("read"), vec![]);
    }

    #[tokio::test]
    async fn lists_by_provider_and_page() {
        let (_, records) = records();
        // `goog` is a prefix of `google` as text, and must not take its connections.
        for (provider, user) in [("google", "b"), ("google", "a"), ("goog", "z"), ("dropbox", "a"), ("google", "c")] {
            records.put_connection(&full(key(provider, user), "t"), Expect::Absent).await.expect("written");
        }
        let check = async |provider: Option<&str>, after: Option<ConnectionKey>, limit: usize, expected: &[(&str, &str)]| {
            let found = records.connections(provider, after.as_ref(), limit).await.expect("listed");
            let found: Vec<_> = found.into_iter().map(|keyed| keyed.record.key).collect();
            assert_eq!(found, expected.iter().map(|(provider, user)| key(provider, user)).collect::<Vec<_>>());
        };
        check(None, None, 9, &[("dropbox", "a"), ("goog", "z"), ("google", "a"), ("google", "b"), ("google", "c")]).await;
        check(Some("google"), None, 2, &[("google", "a"), ("google", "b")]).await;
        check(Some("google"), Some(key("google", "b")), 2, &[("google", "c")]).await;
        check(Some("goog"), None, 9, &[("goog", "z")]).await;
        check(None, Some(key("goog", "z")), 1, &[("google", "a")]).await;
        check(Some("flickr"), None, 9, &[]).await;
    }

    #[tokio::test]
    async fn all_intents_are_found_over_several_pages() {
        let (_, records) = records();
        for number in 0..2 * PAGE + 1 {
            let intent = Intent { key: key("google", &number.to_string()), begun_at: UnixMillis(1), version: 1 };
            records.begin_intent(&intent).await.expect("begun");
        }
        assert_eq!(records.intents().await.expect("read").len(), 2 * PAGE + 1);
    }
}
