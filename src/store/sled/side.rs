//! The side record: a small fsynced file beside sled's own, which says what sled must at least hold.
//!
//! It is written after a group's fsync and before its answers, in one of two slots by turns, so that a write that a crash tears leaves the
//! other slot. Hence sled's generation is never below the side record's, unless sled lost something.

use super::tally::{BadTally, TALLY_LEN, Tally};
use aws_lc_rs::digest;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The file's name in the store's folder.
pub(super) const NAME: &str = "attache-side";
pub(super) const TEMPORARY_NAME: &str = "attache-side.new";

const MAGIC: &[u8; 8] = b"attside\n";
const CHECK_LEN: usize = 8;
const SLOT_LEN: usize = MAGIC.len() + TALLY_LEN + CHECK_LEN;
/// Each slot in a block of its own, so that no torn write reaches both.
const SLOT_STRIDE: usize = 4096;

pub(super) struct Side {
    file: File,
    /// Which slot holds the newest tally, and so is not written next.
    newest: usize,
}

#[derive(Debug)]
pub(super) enum BadSide {
    Io(io::Error),
    Newer,
    Garbled,
}

impl From<io::Error> for BadSide {
    fn from(error: io::Error) -> Self {
        BadSide::Io(error)
    }
}

impl Side {
    /// Makes the file of a new store, whole or not at all.
    pub(super) fn make(folder: &Path) -> io::Result<Side> {
        let temporary = folder.join(TEMPORARY_NAME);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut bytes = vec![0; SLOT_STRIDE + SLOT_LEN];
        bytes[..SLOT_LEN].copy_from_slice(&slot(&Tally::default()));
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(NAME))?;
        File::open(folder)?.sync_all()?;
        Ok(Side { file, newest: 0 })
    }

    /// Reads the newest whole tally; `None` where there is no such file.
    pub(super) fn read(folder: &Path) -> Result<Option<(Side, Tally)>, BadSide> {
        let file = match OpenOptions::new().read(true).write(true).open(folder.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut newest: Option<(usize, Tally)> = None;
        for index in 0..2 {
            let mut bytes = [0; SLOT_LEN];
            match file.read_exact_at(&mut bytes, offset(index)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error.into()),
            }
            match parse(&bytes) {
                Ok(tally) if newest.is_none_or(|(_, found)| tally.generation > found.generation) => newest = Some((index, tally)),
                Ok(_) | Err(BadTally::Garbled) => {}
                Err(BadTally::Newer) => return Err(BadSide::Newer),
            }
        }
        let (index, tally) = newest.ok_or(BadSide::Garbled)?;
        Ok(Some((Side { file, newest: index }, tally)))
    }

    /// Writes the tally over the older slot and syncs it.
    pub(super) fn write(&mut self, tally: &Tally) -> io::Result<()> {
        let next = 1 - self.newest;
        self.file.write_all_at(&slot(tally), offset(next))?;
        self.file.sync_data()?;
        self.newest = next;
        Ok(())
    }
}

fn offset(slot: usize) -> u64 {
    (slot * SLOT_STRIDE) as u64
}

fn slot(tally: &Tally) -> [u8; SLOT_LEN] {
    let mut bytes = [0; SLOT_LEN];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[MAGIC.len()..SLOT_LEN - CHECK_LEN].copy_from_slice(&tally.to_bytes());
    seal(&mut bytes);
    bytes
}

/// Puts the checksum at the slot's end. It is judged before the format is, so that a torn slot never passes for a newer one.
fn seal(bytes: &mut [u8; SLOT_LEN]) {
    let check = digest::digest(&digest::SHA256, &bytes[..SLOT_LEN - CHECK_LEN]);
    bytes[SLOT_LEN - CHECK_LEN..].copy_from_slice(&check.as_ref()[..CHECK_LEN]);
}

fn parse(bytes: &[u8; SLOT_LEN]) -> Result<Tally, BadTally> {
    let mut whole = *bytes;
    seal(&mut whole);
    if !bytes.starts_with(MAGIC) || whole != *bytes {
        return Err(BadTally::Garbled);
    }
    Tally::from_bytes(&bytes[MAGIC.len()..SLOT_LEN - CHECK_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(generation: u64) -> Tally {
        Tally::at(generation)
    }

    fn read(folder: &Path) -> Tally {
        Side::read(folder).expect("read").expect("there").1
    }

    #[test]
    fn keeps_the_newest() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(Side::read(folder.path()).expect("read").is_none());
        let mut side = Side::make(folder.path()).expect("made");
        assert_eq!(read(folder.path()), tally(0));
        for generation in 1..6 {
            side.write(&tally(generation)).expect("written");
            assert_eq!(read(folder.path()), tally(generation));
        }
        let (mut side, _) = Side::read(folder.path()).expect("read").expect("there");
        side.write(&tally(6)).expect("written");
        assert_eq!(read(folder.path()), tally(6));
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let folder = tempfile::tempdir().expect("folder");
        let mut side = Side::make(folder.path()).expect("made");
        side.write(&tally(1)).expect("written");
        side.write(&tally(2)).expect("written");
        let bytes = fs::read(folder.path().join(NAME)).expect("read");
        for at in 0..SLOT_LEN {
            let mut torn = bytes.clone();
            torn[at] ^= 0x80;
            fs::write(folder.path().join(NAME), &torn).expect("written");
            assert_eq!(read(folder.path()), tally(1), "byte {at}");
        }
    }

    #[test]
    fn garbage_and_newer_formats_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        for garbage in [&b""[..], b"x", &[0; 9000]] {
            fs::write(folder.path().join(NAME), garbage).expect("written");
            assert!(matches!(Side::read(folder.path()), Err(BadSide::Garbled)));
        }
        let mut newer = slot(&tally(1));
        newer[MAGIC.len()] += 1;
        seal(&mut newer);
        fs::write(folder.path().join(NAME), newer).expect("written");
        assert!(matches!(Side::read(folder.path()), Err(BadSide::Newer)));
    }
}
