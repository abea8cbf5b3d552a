//! Making one store the same as another: both are walked through in key order, and what differs is written into the second.
//!
//! A pass that finds nothing to write has opened every record on both sides and found each the same: that is the proof of a copy. Passes can
//! be repeated while the first store is written to, each taking over what changed since the one before.

use crate::store::pages::{Source, Walk};
use crate::store::records::parse_key;
use crate::store::seal::{KeyId, Sealer};
use crate::store::survey::{Fault, examine, name_of};
use crate::store::{Connection, Expect, Kind, Records, StoreError, Stored, Write, codec};
use std::cmp::Ordering;

/// How many records go into one write.
const BATCH: usize = 64;

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mirrored {
    pub same: u64,
    pub written: u64,
    pub deleted: u64,
}

impl Mirrored {
    /// Whether both stores were the same already.
    pub fn is_same(&self) -> bool {
        self.written == 0 && self.deleted == 0
    }

    pub fn total(&self) -> u64 {
        self.same + self.written
    }
}

/// What a pass may do to the second store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nothing that would take back what the second store knows and the first does not.
    Older,
    /// Whatever makes it the same.
    Anything,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} ({}) does not open: {}", .0.record, .0.kind.name(), .0.why)]
    Fault(Box<Fault>),
    #[error("the second store's {0} is newer than the first's: it was written to by its own server")]
    Newer(String),
}

impl From<Box<Fault>> for MirrorError {
    fn from(fault: Box<Fault>) -> Self {
        MirrorError::Fault(fault)
    }
}

/// Makes `to` the same as `from`, whose records open with `opener`. A record stays sealed as it is where `to` has its key.
///
/// # Errors
/// When a record does not open, `to` is newer somewhere ([`Over::Older`]), or either store fails. What was written stays.
pub async fn pass(from: &dyn Source, opener: &Sealer, to: &Records, over: Over) -> Result<Mirrored, MirrorError> {
    let mut done = Mirrored::default();
    for kind in Kind::ALL {
        mirror_kind(from, opener, to, kind, over, &mut done).await?;
    }
    Ok(done)
}

async fn mirror_kind(
    from: &dyn Source,
    opener: &Sealer,
    to: &Records,
    kind: Kind,
    over: Over,
    done: &mut Mirrored,
) -> Result<(), MirrorError> {
    let (mut theirs, mut ours) = (Walk::new(from, kind), Walk::new(to, kind));
    let (mut wanted, mut there) = (theirs.next().await?, ours.next().await?);
    let (mut batch, mut surplus) = (Vec::new(), Vec::new());
    // The newest change of any connection in the first store: what is newer can be none that it deleted since.
    let mut newest = None;
    loop {
        let order = match (&wanted, &there) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((wanted, _)), Some((there, _))) => wanted.cmp(there),
        };
        // Only of the first store: its own bytes are what is asked about.
        if order == Ordering::Greater {
            surplus.extend(there);
            there = ours.next().await?;
            continue;
        }
        let Some((key, stored)) = wanted.take() else { break };
        let plain = examine(opener, kind, &key, &stored.value)?.plain;
        let mine = if kind == Kind::Connection { Some(decode(&key, &plain)?) } else { None };
        newest = newest.max(mine.as_ref().map(|mine| mine.updated_at));
        let expect = match there.take_if(|_| order == Ordering::Equal) {
            None => Some(Expect::Absent),
            Some((_, old)) => {
                let opened = examine(&to.sealer, kind, &key, &old.value)?.plain;
                if opened == plain {
                    done.same += 1;
                    None
                } else {
                    if over == Over::Older
                        && let Some(mine) = &mine
                        && decode(&key, &opened)?.updated_at > mine.updated_at
                    {
                        return Err(MirrorError::Newer(name_of(kind, &key)));
                    }
                    Some(Expect::Version(old.version))
                }
            }
        };
        if let Some(expect) = expect {
            let is_known = KeyId::of_envelope(&stored.value).is_some_and(|id| to.sealer.knows(id))
                && to.sealer.open(kind, &key, &stored.value).is_ok();
            let value = if is_known { stored.value } else { to.sealer.seal(kind, &key, &plain)? };
            done.written += 1;
            batch.push(Write { kind, key, expect, value: Some(value) });
        }
        if order == Ordering::Equal {
            there = ours.next().await?;
        }
        wanted = theirs.next().await?;
        if batch.len() == BATCH {
            to.write_sealed(std::mem::take(&mut batch)).await?;
        }
    }
    for (key, Stored { version, value }) in surplus {
        if over == Over::Older && kind == Kind::Connection {
            let plain = examine(&to.sealer, kind, &key, &value)?.plain;
            if Some(decode(&key, &plain)?.updated_at) > newest {
                return Err(MirrorError::Newer(name_of(kind, &key)));
            }
        }
        done.deleted += 1;
        batch.push(Write { kind, key, expect: Expect::Version(version), value: None });
    }
    while !batch.is_empty() {
        let rest = batch.split_off(batch.len().min(BATCH));
        to.write_sealed(std::mem::replace(&mut batch, rest)).await?;
    }
    Ok(())
}

fn decode(key: &[u8], plain: &[u8]) -> Result<Connection, StoreError> {
    codec::decode_connection(parse_key(Kind::Connection, key)?, plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;
    use crate::base::ids::ConnectionKey;
    use crate::store::codec::tests::full;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::SealingKey;
    use crate::store::{Intent, SessionWrite};

    fn key(number: u32) -> ConnectionKey {
        ConnectionKey::new("google", &format!("{number:04}"), "default")
    }

    fn at(number: u32, token: &str, updated_at: i64) -> Connection {
        Connection { updated_at: UnixMillis(updated_at), ..full(key(number), token) }
    }

    fn empty(keys: &[SealingKey]) -> Records {
        Records::new(MemoryStore::new(), Sealer::new(keys))
    }

    async fn filled(keys: &[SealingKey]) -> Records {
        let records = empty(keys);
        for number in 0..600 {
            records.put_connection(&at(number, "t", 5), Expect::Absent).await.expect("written");
        }
        records.begin_intent(&Intent { key: key(1), begun_at: UnixMillis(7), version: 1 }).await.expect("written");
        records.put_session(SessionWrite { key: b"s", expect: Expect::Absent, value: Some(b"session") }).await.expect("written");
        records
    }

    #[tokio::test]
    async fn a_copy_is_exact_and_later_passes_take_over_what_changed() {
        let shared = [SealingKey::generate()];
        let other = [SealingKey::generate()];
        for (keys, stays_as_it_was) in [(&shared, true), (&other, false)] {
            let (from, to) = (filled(&shared).await, empty(keys));
            let first = pass(&from, &from.sealer, &to, Over::Older).await.expect("copied");
            assert_eq!(first, Mirrored { same: 0, written: 602, deleted: 0 });
            from.put_connection(&at(3, "rotated", 9), Expect::Any).await.expect("written");
            from.put_connection(&at(9000, "new", 9), Expect::Absent).await.expect("written");
            from.delete_connection(&key(8)).await.expect("deleted");
            from.clear_intent(&key(1)).await.expect("cleared");
            let second = pass(&from, &from.sealer, &to, Over::Older).await.expect("copied");
            assert_eq!(second, Mirrored { same: 599, written: 2, deleted: 2 });
            assert!(pass(&from, &from.sealer, &to, Over::Older).await.expect("compared").is_same());
            to.check().await.expect("all open with its own keys");
            assert_eq!(to.connection(&key(3)).await.expect("read").expect("there").record.access_token.expose(), "rotated");
            let is_as_it_was =
                KeyId::of_envelope(&to.sealed_page(Kind::Session, None, 1).await.expect("read")[0].1.value) == from.sealer.first();
            assert_eq!(is_as_it_was, stays_as_it_was, "sealed anew only where it must");
        }
    }

    /// A second store that has been served from holds tokens that the first does not know: to take them back would lose grants.
    #[tokio::test]
    async fn a_newer_second_store_is_left_alone() {
        let keys = [SealingKey::generate()];
        let (from, to) = (filled(&keys).await, empty(&keys));
        pass(&from, &from.sealer, &to, Over::Older).await.expect("copied");
        to.put_connection(&at(3, "rotated there", 99), Expect::Any).await.expect("written");
        let refused = pass(&from, &from.sealer, &to, Over::Older).await.expect_err("refused");
        assert!(matches!(&refused, MirrorError::Newer(name) if name.contains("0003")), "{refused}");
        assert_eq!(to.connection(&key(3)).await.expect("read").expect("there").record.access_token.expose(), "rotated there");
        pass(&from, &from.sealer, &to, Over::Anything).await.expect("copied");
        to.put_connection(&at(7000, "connected there", 99), Expect::Absent).await.expect("written");
        assert!(matches!(pass(&from, &from.sealer, &to, Over::Older).await, Err(MirrorError::Newer(_))));
        assert!(to.connection(&key(7000)).await.expect("read").is_some());
    }

    #[tokio::test]
    async fn a_record_that_does_not_open_ends_the_copy() {
        let (from, to) = (filled(&[SealingKey::generate()]).await, empty(&[SealingKey::generate()]));
        let refused = pass(&from, &to.sealer, &to, Over::Older).await.expect_err("refused");
        assert!(matches!(refused, MirrorError::Fault(_)), "{refused}");
    }
}
