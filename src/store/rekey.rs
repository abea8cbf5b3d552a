//! Sealing records anew with the first key, page by page, while others read and write them.
//!
//! Each record is swapped by its version, so that a rotation that comes between is never undone: it was sealed with the first key anyway, or
//! is read and sealed again. Where it ends does not matter: what has the first key is left alone the next time.

use crate::store::seal::KeyId;
use crate::store::survey::{Fault, examine};
use crate::store::{Expect, Kind, Records, StoreError, Stored, Write};
use futures_util::future::join_all;

/// How often one record is read anew because another writer came between. None of them writes so often.
const TRIES: usize = 8;

/// What became of one page.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// Sealed anew.
    pub resealed: u64,
    /// Sealed with the first key already, or gone meanwhile.
    pub left: u64,
    /// What does not open: it is left as it is.
    pub faults: Vec<Fault>,
    /// Where the next page begins; none at the end.
    pub next: Option<Vec<u8>>,
}

enum Became {
    Resealed,
    Left,
    Faulty(Box<Fault>),
}

impl Records {
    /// Seals the records of one page anew that are not sealed with the first key.
    ///
    /// # Errors
    /// When the store cannot be read or written. What was sealed anew before stays so.
    pub async fn rekey_page(&self, kind: Kind, after: Option<&[u8]>, limit: usize) -> Result<Rekeyed, StoreError> {
        let page = self.sealed_page(kind, after, limit).await?;
        let mut done = Rekeyed { next: page.last().map(|(key, _)| key.clone()), ..Rekeyed::default() };
        // At once, so that a store that groups its writes syncs once for all of them.
        for became in join_all(page.into_iter().map(|(key, stored)| self.reseal(kind, key, stored))).await {
            match became? {
                Became::Resealed => done.resealed += 1,
                Became::Left => done.left += 1,
                Became::Faulty(fault) => done.faults.push(*fault),
            }
        }
        Ok(done)
    }

    async fn reseal(&self, kind: Kind, key: Vec<u8>, mut stored: Stored) -> Result<Became, StoreError> {
        for _ in 0..TRIES {
            if KeyId::of_envelope(&stored.value) == self.sealer.first() {
                return Ok(Became::Left);
            }
            let opened = match examine(&self.sealer, kind, &key, &stored.value) {
                Ok(opened) => opened,
                Err(fault) => return Ok(Became::Faulty(fault)),
            };
            let value = self.sealer.seal(kind, &key, &opened.plain)?;
            let write = Write { kind, key: key.clone(), expect: Expect::Version(stored.version), value: Some(value) };
            match self.store.write(vec![write]).await {
                Ok(_) => return Ok(Became::Resealed),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
            match self.store.get(kind, &key).await? {
                Some(now) => stored = now,
                None => return Ok(Became::Left),
            }
        }
        Err(StoreError::Conflict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ConnectionKey;
    use crate::store::Store;
    use crate::store::codec::tests::full;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::{Sealer, SealingKey};

    fn key(number: u32) -> ConnectionKey {
        ConnectionKey::new("google", &format!("{number:04}"), "default")
    }

    async fn rekey_all(records: &Records, limit: usize) -> (u64, u64) {
        let (mut after, mut resealed, mut faults) = (None, 0, 0);
        loop {
            let done = records.rekey_page(Kind::Connection, after.as_deref(), limit).await.expect("rekeyed");
            (resealed, faults) = (resealed + done.resealed, faults + done.faults.len() as u64);
            match done.next {
                Some(next) => after = Some(next),
                None => return (resealed, faults),
            }
        }
    }

    #[tokio::test]
    async fn afterwards_the_first_key_alone_opens_everything() {
        let (new, old) = (SealingKey::generate(), SealingKey::generate());
        let store = MemoryStore::new();
        let before = Records::new(store.clone(), Sealer::new(std::slice::from_ref(&old)));
        for number in 0..300 {
            before.put_connection(&full(key(number), &number.to_string()), Expect::Absent).await.expect("written");
        }
        let both = Records::new(store.clone(), Sealer::new(&[new.clone(), old]));
        both.put_connection(&full(key(7), "rotated"), Expect::Any).await.expect("written");
        assert_eq!(rekey_all(&both, 32).await, (299, 0));
        assert_eq!(rekey_all(&both, 32).await, (0, 0), "again, and nothing is left to do");
        let after = Records::new(store, Sealer::new(&[new]));
        after.check().await.expect("all open");
        assert_eq!(after.connection(&key(7)).await.expect("read").expect("there").record.access_token.expose(), "rotated");
    }

    #[tokio::test]
    async fn what_does_not_open_is_told_and_left() {
        let (new, other) = (SealingKey::generate(), SealingKey::generate());
        let store = MemoryStore::new();
        let foreign = Records::new(store.clone(), Sealer::new(std::slice::from_ref(&other)));
        foreign.put_connection(&full(key(1), "t"), Expect::Absent).await.expect("written");
        let kept = store.get(Kind::Connection, &key(1).to_bytes()).await.expect("read");
        assert_eq!(rekey_all(&Records::new(store.clone(), Sealer::new(&[new])), 8).await, (0, 1));
        assert_eq!(store.get(Kind::Connection, &key(1).to_bytes()).await.expect("read"), kept);
    }

    /// A store in which each record is rotated by somebody else just before it is sealed anew.
    #[tokio::test]
    async fn a_rotation_in_between_is_never_undone() {
        let (new, old) = (SealingKey::generate(), SealingKey::generate());
        let store = MemoryStore::new();
        let before = Records::new(store.clone(), Sealer::new(std::slice::from_ref(&old)));
        before.put_connection(&full(key(1), "first"), Expect::Absent).await.expect("written");
        let stale = store.get(Kind::Connection, &key(1).to_bytes()).await.expect("read").expect("there");
        before.put_connection(&full(key(1), "rotated"), Expect::Any).await.expect("written");
        let both = Records::new(store.clone(), Sealer::new(&[new.clone(), old]));
        both.reseal(Kind::Connection, key(1).to_bytes(), stale).await.expect("rekeyed");
        let found = Records::new(store, Sealer::new(&[new])).connection(&key(1)).await.expect("read").expect("there");
        assert_eq!(found.record.access_token.expose(), "rotated");
    }
}
