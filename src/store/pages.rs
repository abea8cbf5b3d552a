//! Sealed records page by page, wherever they come from: a store of this process, or a running server's admin API.

use crate::store::{Kind, Records, Scanned, StoreError, Stored, Write};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::VecDeque;

/// How many records a page holds at most.
pub const PAGE_RECORDS_MAX: usize = 256;
/// How many bytes of keys and sealed values, unless its first record alone has more: an answer of the admin API stays below 1 MiB.
pub const PAGE_BYTES_MAX: usize = 384 * 1024;

/// What can be read record by record. The records stay sealed.
pub trait Source: Send + Sync {
    /// The next records of a kind in key order, after the key `after`; none at the end.
    fn page(&self, kind: Kind, after: Option<Vec<u8>>) -> BoxFuture<'_, Result<Scanned, StoreError>>;
}

impl Source for Records {
    fn page(&self, kind: Kind, after: Option<Vec<u8>>) -> BoxFuture<'_, Result<Scanned, StoreError>> {
        async move { self.sealed_page(kind, after.as_deref(), PAGE_RECORDS_MAX).await }.boxed()
    }
}

impl Records {
    /// Up to `limit` records as they lie in the store, within [`PAGE_BYTES_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sealed_page(&self, kind: Kind, after: Option<&[u8]>, limit: usize) -> Result<Scanned, StoreError> {
        let mut page = self.store.scan(kind, &[], after, limit.min(PAGE_RECORDS_MAX)).await?;
        let mut bytes = 0;
        let fits = page.iter().take_while(|(key, stored)| {
            bytes += key.len() + stored.value.len();
            bytes <= PAGE_BYTES_MAX
        });
        let fitting = fits.count().max(1);
        page.truncate(fitting);
        Ok(page)
    }

    /// Writes records that are sealed already, all or none.
    ///
    /// # Errors
    /// As the store's own write.
    pub async fn write_sealed(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        self.store.write(batch).await.map(drop)
    }

    /// Whether nothing at all is stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        for kind in Kind::ALL {
            if !self.store.scan(kind, &[], None, 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Walks through one kind of a source, one record at a time.
pub(super) struct Walk<'s> {
    source: &'s dyn Source,
    kind: Kind,
    page: VecDeque<(Vec<u8>, Stored)>,
    after: Option<Vec<u8>>,
    ended: bool,
}

impl<'s> Walk<'s> {
    pub(super) fn new(source: &'s dyn Source, kind: Kind) -> Self {
        Walk { source, kind, page: VecDeque::new(), after: None, ended: false }
    }

    /// The next record, in key order.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<u8>, Stored)>, StoreError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.source.page(self.kind, self.after.take()).await?.into();
            match self.page.back() {
                Some((key, _)) => self.after = Some(key.clone()),
                None => self.ended = true,
            }
        }
        Ok(self.page.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::put;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::{Sealer, SealingKey};
    use crate::store::{Expect, Store, VALUE_LEN_MAX};

    #[tokio::test]
    async fn pages_are_bounded_and_a_walk_sees_each_record_once() {
        let store = MemoryStore::new();
        for number in 0..600u32 {
            let value = vec![1; if number % 20 == 0 { VALUE_LEN_MAX } else { 10 }];
            store.write(vec![put(Kind::Session, &number.to_be_bytes(), Expect::Absent, &value)]).await.expect("written");
        }
        let records = Records::new(store, Sealer::new(&[SealingKey::generate()]));
        let page = records.sealed_page(Kind::Session, None, 10_000).await.expect("read");
        assert!(page.len() <= PAGE_RECORDS_MAX && page.iter().map(|(_, stored)| stored.value.len()).sum::<usize>() <= PAGE_BYTES_MAX);
        let (mut walk, mut seen) = (Walk::new(&records, Kind::Session), 0u32);
        while let Some((key, _)) = walk.next().await.expect("read") {
            assert_eq!(key, seen.to_be_bytes());
            seen += 1;
        }
        assert_eq!(seen, 600);
        assert!(!records.is_empty().await.expect("read"));
    }
}
