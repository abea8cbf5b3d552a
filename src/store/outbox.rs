//! Notices in the store until they are delivered: written in the batch of the change that they tell of, so that neither is there without the other.

use crate::store::{Expect, Kind, Records, StoreError, Write};

/// A notice for the outbox; not yet sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxWrite {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// A notice's key, version and opened bytes.
pub type FoundNotice = (Vec<u8>, u64, Vec<u8>);

impl Records {
    /// Adds notices to a batch.
    pub(super) fn add_notices(&self, batch: &mut Vec<Write>, notices: &[OutboxWrite]) -> Result<(), StoreError> {
        for notice in notices {
            let value = self.sealer.seal(Kind::Outbox, &notice.key, &notice.value)?;
            batch.push(Write { kind: Kind::Outbox, key: notice.key.clone(), expect: Expect::Any, value: Some(value) });
        }
        Ok(())
    }

    /// Puts notices that tell of no record's change.
    pub async fn put_notices(&self, notices: &[OutboxWrite]) -> Result<(), StoreError> {
        let mut batch = Vec::new();
        self.add_notices(&mut batch, notices)?;
        self.store.write(batch).await.map(drop)
    }

    /// Up to `limit` notices, in the order of their keys, after the key `after`. Those that do not open are left out: their key is gone, and what
    /// they told with it.
    pub async fn outbox(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<FoundNotice>, StoreError> {
        let found = self.store.scan(Kind::Outbox, &[], after, limit).await?;
        let opened = found.into_iter().filter_map(|(key, stored)| {
            let bytes = self.sealer.open(Kind::Outbox, &key, &stored.value).ok()?;
            Some((key, stored.version, bytes.to_vec()))
        });
        Ok(opened.collect())
    }

    /// Writes a notice anew, unless another has changed it.
    pub async fn keep_letter(&self, notice: OutboxWrite, version: u64) -> Result<(), StoreError> {
        let value = Some(self.sealer.seal(Kind::Outbox, &notice.key, &notice.value)?);
        let write = Write { kind: Kind::Outbox, key: notice.key, expect: Expect::Version(version), value };
        unless_changed(self.store.write(vec![write]).await)
    }

    /// Takes a notice out of the outbox, unless another has changed it.
    pub async fn strike_letter(&self, key: &[u8], version: u64) -> Result<(), StoreError> {
        let deletion = Write { kind: Kind::Outbox, key: key.to_vec(), expect: Expect::Version(version), value: None };
        unless_changed(self.store.write(vec![deletion]).await)
    }
}

/// Another's change is another's business.
fn unless_changed(written: Result<Vec<u64>, StoreError>) -> Result<(), StoreError> {
    match written {
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}
