//! Typed, sealed records on top of any [`Store`]: what the rest of the program reads and writes.

use crate::base::ids::ConnectionKey;
use crate::store::gate::Gate;
use crate::store::outbox::OutboxWrite;
use crate::store::seal::Sealer;
use crate::store::{Change, Connection, Expect, Holder, Intent, Kind, Lease, Store, StoreError, Stored, Write, codec};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use zeroize::Zeroizing;

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

/// A session's opened bytes: they may hold tokens, so that `Debug` shows none of them.
#[derive(Clone)]
pub struct SessionBytes(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for SessionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionBytes({} bytes)", self.0.len())
    }
}

/// One change of a session; without a value it is deleted.
#[derive(Clone, Copy)]
pub struct SessionWrite<'a> {
    pub key: &'a [u8],
    pub expect: Expect,
    /// Not yet sealed.
    pub value: Option<&'a [u8]>,
}

/// A session's key and its opened bytes; `None` where they do not open, for their key is no longer configured.
pub type FoundSession = (Vec<u8>, Option<Keyed<SessionBytes>>);

/// The typed store. Clones share it.
#[derive(Clone)]
pub struct Records {
    pub(super) store: Arc<dyn Store>,
    pub(super) sealer: Sealer,
    gate: Arc<Gate>,
}

impl Records {
    pub fn new(store: Arc<dyn Store>, sealer: Sealer) -> Self {
        let gate = Gate::new(store);
        Records { store: gate.clone(), sealer, gate }
    }

    /// What stops writes while the records move to another store.
    pub fn gate(&self) -> &Gate {
        &self.gate
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
        self.settle_telling(connection, expect, true, &[]).await
    }

    /// Writes the connection and the notices of its change in one batch, and deletes its intent where it is settled.
    pub async fn settle_telling(
        &self,
        connection: &Connection,
        expect: Expect,
        settled: bool,
        notices: &[OutboxWrite],
    ) -> Result<u64, StoreError> {
        let mut batch = vec![self.connection_write(connection, expect)?];
        if settled {
            batch.push(intent_deletion(connection.key.to_bytes()));
        }
        self.add_notices(&mut batch, notices)?;
        self.write_first(batch).await
    }

    /// Deletes the connection and whatever intent was left of it; answers what was deleted, for its revocation at the provider.
    pub async fn delete_connection(&self, key: &ConnectionKey) -> Result<Option<Connection>, StoreError> {
        self.delete_connection_telling(key, |_| Vec::new()).await
    }

    /// The same with the notices of it, in the same batch.
    pub async fn delete_connection_telling(
        &self,
        key: &ConnectionKey,
        notices: impl Fn(&Connection) -> Vec<OutboxWrite>,
    ) -> Result<Option<Connection>, StoreError> {
        let bytes = key.to_bytes();
        for _ in 0..DELETE_TRIES {
            let found = self.connection(key).await?;
            let expect = found.as_ref().map_or(Expect::Absent, |keyed| Expect::Version(keyed.version));
            let deletion = Write { kind: Kind::Connection, key: bytes.clone(), expect, value: None };
            let mut batch = vec![deletion, intent_deletion(bytes.clone())];
            if let Some(keyed) = &found {
                self.add_notices(&mut batch, &notices(&keyed.record))?;
            }
            match self.store.write(batch).await {
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
        self.connections_of(provider, None, after, limit).await
    }

    /// The same, of one end user at one provider where both are given.
    pub async fn connections_of(
        &self,
        provider: Option<&str>,
        end_user: Option<&str>,
        after: Option<&ConnectionKey>,
        limit: usize,
    ) -> Result<Vec<Keyed<Connection>>, StoreError> {
        // The key's parts are closed by a zero byte each, so that a name is no prefix of a longer one.
        let parts = provider.into_iter().chain(provider.and(end_user));
        let prefix: Vec<u8> = parts.flat_map(|part| part.bytes().chain([0])).collect();
        let after = after.map(ConnectionKey::to_bytes);
        let found = self.store.scan(Kind::Connection, &prefix, after.as_deref(), limit).await?;
        found.iter().map(|(key, stored)| self.open_connection(parse_key(Kind::Connection, key)?, stored)).collect()
    }

    /// The session under `key`: the connect room's own bytes, opened.
    pub async fn session(&self, key: &[u8]) -> Result<Option<Keyed<SessionBytes>>, StoreError> {
        match self.store.get(Kind::Session, key).await? {
            Some(stored) => self.open_session(key, &stored).map(Some),
            None => Ok(None),
        }
    }

    /// Writes or, without a value, deletes a session.
    pub async fn put_session(&self, session: SessionWrite<'_>) -> Result<u64, StoreError> {
        let write = self.session_write(session)?;
        self.write_first(vec![write]).await
    }

    /// Up to `limit` sessions whose keys begin with `prefix`, after the key `after`.
    pub async fn sessions(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<FoundSession>, StoreError> {
        let found = self.store.scan(Kind::Session, prefix, after, limit).await?;
        let open = |(key, stored): (Vec<u8>, Stored)| {
            let opened = self.open_session(&key, &stored).ok();
            (key, opened)
        };
        Ok(found.into_iter().map(open).collect())
    }

    /// A connection and the session that it came of, in one batch with the intent that a grant before it may have left: after a crash the
    /// session is spent and the connection there, or neither. Without a connection, the one under `key` is deleted.
    pub async fn land(
        &self,
        key: &ConnectionKey,
        connection: Option<&Connection>,
        expect: Expect,
        further: &[(Connection, Expect)],
        session: SessionWrite<'_>,
        notices: &[OutboxWrite],
    ) -> Result<(), StoreError> {
        let write = match connection {
            Some(connection) => self.connection_write(connection, expect)?,
            None => Write { kind: Kind::Connection, key: key.to_bytes(), expect, value: None },
        };
        let mut batch = vec![write, intent_deletion(key.to_bytes()), self.session_write(session)?];
        for (connection, expect) in further {
            batch.extend([self.connection_write(connection, *expect)?, intent_deletion(connection.key.to_bytes())]);
        }
        self.add_notices(&mut batch, notices)?;
        self.store.write(batch).await.map(drop)
    }

    /// Whether other processes may write the same records.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// [`Store::release`] of the store below.
    pub async fn release(&self, key: &[u8], holder: Holder) -> Result<(), StoreError> {
        self.store.release(key, holder).await
    }

    /// [`Store::lease`] of the store below.
    pub async fn lease(&self, key: &[u8], holder: Holder, ttl: Duration) -> Result<Lease, StoreError> {
        self.store.lease(key, holder, ttl).await
    }

    /// A connection sealed for an export line: it opens with the same keys, under the same key, and nowhere else.
    pub fn seal_connection(&self, connection: &Connection) -> Result<Vec<u8>, StoreError> {
        self.sealer.seal(Kind::Connection, &connection.key.to_bytes(), &codec::encode_connection(connection)?)
    }

    /// What [`Records::seal_connection`] sealed.
    ///
    /// # Errors
    /// When it was sealed for another connection or with a key that is not here.
    pub fn open_sealed(&self, key: &ConnectionKey, sealed: &[u8]) -> Result<Connection, StoreError> {
        codec::decode_connection(key.clone(), &self.sealer.open(Kind::Connection, &key.to_bytes(), sealed)?)
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

    /// The mark of one connection, if it stands.
    pub async fn intent(&self, key: &ConnectionKey) -> Result<Option<Intent>, StoreError> {
        let bytes = key.to_bytes();
        match self.store.get(Kind::Intent, &bytes).await? {
            Some(stored) => codec::decode_intent(key.clone(), &self.sealer.open(Kind::Intent, &bytes, &stored.value)?).map(Some),
            None => Ok(None),
        }
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

    fn open_session(&self, key: &[u8], stored: &Stored) -> Result<Keyed<SessionBytes>, StoreError> {
        let record = SessionBytes(self.sealer.open(Kind::Session, key, &stored.value)?);
        Ok(Keyed { version: stored.version, record })
    }

    fn session_write(&self, session: SessionWrite<'_>) -> Result<Write, StoreError> {
        let SessionWrite { key, expect, value } = session;
        let value = value.map(|plain| self.sealer.seal(Kind::Session, key, plain)).transpose()?;
        Ok(Write { kind: Kind::Session, key: key.to_vec(), expect, value })
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

pub(super) fn parse_key(kind: Kind, bytes: &[u8]) -> Result<ConnectionKey, StoreError> {
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
