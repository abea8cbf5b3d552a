//! The sum of all a sled store holds: by it a store that lost or changed a record is told from one that did not.
//!
//! Kept twice: inside sled, written by each transaction, and in the side record, outside of what sled can lose.

use crate::store::Kind;
use aws_lc_rs::digest;

const FORMAT: u8 = 1;
const KINDS: usize = Kind::ALL.len();

/// Length of [`Tally::to_bytes`]: format, generation, number of kinds, counts, digest.
pub(super) const TALLY_LEN: usize = 1 + 8 + 1 + 8 * KINDS + 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// One more with each group of writes.
    pub(super) generation: u64,
    /// Records of each kind, in the order of [`Kind::ALL`].
    pub(super) counts: [u64; KINDS],
    /// The sum of all records' hashes. A sum can be kept up to date without reading the other records; it tells of accidents, while it is
    /// the seal that keeps forgers out.
    digest: u128,
}

/// Bytes that are no tally this attache can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadTally {
    Newer,
    Garbled,
}

impl Tally {
    /// The same records, one generation on.
    pub(super) fn next(mut self) -> Tally {
        self.generation += 1;
        self
    }

    #[cfg(test)]
    pub(super) fn at(generation: u64) -> Tally {
        Tally { generation, ..Tally::default() }
    }

    /// Takes a record in. `bytes` is its tree value, version and all.
    pub(super) fn add(&mut self, kind: Kind, key: &[u8], bytes: &[u8]) {
        self.counts[slot(kind)] = self.counts[slot(kind)].wrapping_add(1);
        self.digest = self.digest.wrapping_add(hash(kind, key, bytes));
    }

    /// Takes a record out again.
    pub(super) fn remove(&mut self, kind: Kind, key: &[u8], bytes: &[u8]) {
        self.counts[slot(kind)] = self.counts[slot(kind)].wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(hash(kind, key, bytes));
    }

    /// Whether both stand for the same records, whatever their generation.
    pub(super) fn same_records(&self, other: &Tally) -> bool {
        self.counts == other.counts && self.digest == other.digest
    }

    /// `3 connections, 1 intents`, for refusals.
    pub(super) fn describe(&self) -> String {
        let each = Kind::ALL.iter().zip(self.counts).map(|(kind, count)| format!("{count} {}", kind.name()));
        each.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn to_bytes(self) -> [u8; TALLY_LEN] {
        let mut bytes = [0; TALLY_LEN];
        bytes[0] = FORMAT;
        bytes[1..9].copy_from_slice(&self.generation.to_le_bytes());
        bytes[9] = KINDS as u8;
        for (place, count) in bytes[10..].chunks_exact_mut(8).zip(self.counts) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        bytes[TALLY_LEN - 16..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Tally, BadTally> {
        match bytes.first() {
            Some(&FORMAT) if bytes.len() == TALLY_LEN && bytes[9] == KINDS as u8 => {}
            Some(format) if *format > FORMAT => return Err(BadTally::Newer),
            _ => return Err(BadTally::Garbled),
        }
        let number = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or(BadTally::Garbled);
        let mut counts = [0; KINDS];
        for (index, count) in counts.iter_mut().enumerate() {
            *count = number(10 + 8 * index)?;
        }
        let digest = bytes.last_chunk().map(|bytes| u128::from_le_bytes(*bytes)).ok_or(BadTally::Garbled)?;
        Ok(Tally { generation: number(1)?, counts, digest })
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Connection => 0,
        Kind::Session => 1,
        Kind::Intent => 2,
        Kind::Outbox => 3,
    }
}

fn hash(kind: Kind, key: &[u8], bytes: &[u8]) -> u128 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[slot(kind) as u8]);
    context.update(&(key.len() as u64).to_le_bytes());
    context.update(key);
    context.update(bytes);
    let mut first = [0; 16];
    first.copy_from_slice(&context.finish().as_ref()[..16]);
    u128::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_order_of_kinds() {
        assert_eq!(Kind::ALL.map(slot), [0, 1, 2, 3]);
    }

    #[test]
    fn taking_out_undoes_taking_in_in_any_order() {
        let mut tally = Tally::default();
        tally.add(Kind::Connection, b"a", b"1");
        let one = tally;
        tally.add(Kind::Intent, b"b", b"2");
        tally.add(Kind::Connection, b"a2", b"1");
        tally.remove(Kind::Connection, b"a", b"1");
        assert!(!tally.same_records(&one));
        tally.remove(Kind::Intent, b"b", b"2");
        tally.add(Kind::Connection, b"a", b"1");
        tally.remove(Kind::Connection, b"a2", b"1");
        assert!(tally.same_records(&one));
    }

    #[test]
    fn tells_apart_key_and_value_and_kind() {
        let of = |kind, key: &[u8], bytes: &[u8]| {
            let mut tally = Tally::default();
            tally.add(kind, key, bytes);
            tally
        };
        let tally = of(Kind::Connection, b"ab", b"c");
        for other in [of(Kind::Connection, b"a", b"bc"), of(Kind::Session, b"ab", b"c"), of(Kind::Connection, b"ab", b"d")] {
            assert_ne!(tally.digest, other.digest);
        }
    }

    #[test]
    fn bytes_round_trip_and_other_formats_are_refused() {
        let mut tally = Tally::at(77);
        tally.add(Kind::Outbox, b"k", b"v");
        let bytes = tally.to_bytes();
        assert_eq!(Tally::from_bytes(&bytes), Ok(tally));
        assert_eq!(Tally::from_bytes(&bytes[..TALLY_LEN - 1]), Err(BadTally::Garbled));
        assert_eq!(Tally::from_bytes(&[]), Err(BadTally::Garbled));
        assert_eq!(Tally::from_bytes(&[2; 90]), Err(BadTally::Newer));
    }
}
