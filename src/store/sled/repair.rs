//! Salvage: what can still be read of a sled store that refuses to open, and a whole store made of it.
//!
//! Nothing here touches the store itself. A look is taken at a copy of its folder, because sled changes files as it recovers them; what is
//! made is a new store beside it; and at the end the old folder is renamed, not removed.

use super::SledStore;
use super::open::{self, Lock, TALLY_KEY, TALLY_TREE};
use super::side::{BadSide, Side};
use super::tally::Tally;
use crate::store::{Kind, StoreError, Stored};
use ::sled::{Db, Tree};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What was read of a damaged store.
pub struct Salvaged {
    pub records: Vec<(Kind, Vec<u8>, Stored)>,
    /// What the store must have held by its side record or, without one, by its own tally: counts by kind, and the number of its last write.
    pub expected: Option<(BTreeMap<Kind, u64>, u64)>,
    /// The number of the last write that sled found.
    pub found_write: Option<u64>,
    /// Kinds in which reading broke off in the middle.
    pub broken_off: Vec<Kind>,
    /// Whether these are the very records that the store must hold.
    pub is_exact: bool,
}

/// The sole right to a store's folder, whatever state it is in.
pub struct Held(#[expect(dead_code, reason = "held until it is dropped")] Lock);

/// Takes the folder, so that no server works on it meanwhile.
///
/// # Errors
/// When a server has it.
pub fn hold(path: &Path) -> Result<Held, StoreError> {
    open::lock_as_it_is(path).map(Held)
}

/// Copies a store's folder into the new folder `to`, file by file.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        match () {
            () if kind.is_dir() && name != "lost+found" => copy_folder(&entry.path(), &to.join(name))?,
            () if kind.is_file() => drop(fs::copy(entry.path(), to.join(name))?),
            // A link or a socket is no part of a store.
            () => {}
        }
    }
    Ok(())
}

/// Opens a copy as a start would: what refuses it, if anything does, in its own words for the store at `of`.
///
/// # Errors
/// What a start would say.
pub fn look(copy: &Path, of: &Path) -> Result<std::sync::Arc<SledStore>, StoreError> {
    let place = |why: String| why.replace(&copy.display().to_string(), &of.display().to_string());
    SledStore::open(copy).map_err(|error| match error {
        StoreError::Damaged(why) => StoreError::Damaged(place(why)),
        StoreError::Unavailable(why) => StoreError::Unavailable(place(why)),
        StoreError::Conflict => StoreError::Conflict,
    })
}

/// Reads all that can be read of a copy. The copy may be changed by it.
///
/// # Errors
/// When sled cannot be brought to read it at all, or a newer attache made the store.
pub fn salvage(copy: &Path) -> Result<Salvaged, StoreError> {
    let side = match Side::read(copy) {
        // What its other parts mean by now is not known here.
        Err(BadSide::Newer) => return Err(StoreError::Damaged("a newer attache made it".to_owned())),
        read => read.ok().flatten().map(|(_, tally)| tally),
    };
    open::put_unfinished_snapshots_aside(copy).map_err(|error| StoreError::Unavailable(format!("the copy: {error}")))?;
    // Snapshots only spare reading the log, and may be what is damaged; so without them in the end. sled mends its log as it reads it, so
    // that a second try may see more than the first.
    for without_snapshots in [false, false, true, true] {
        if without_snapshots {
            remove_snapshots(copy).map_err(|error| StoreError::Unavailable(format!("the copy: {error}")))?;
        }
        if let Ok(Ok(salvaged)) = catch_unwind(AssertUnwindSafe(|| open::open_sled(copy).map(|db| read(&db, side.as_ref())))) {
            return Ok(salvaged);
        }
    }
    Err(StoreError::Damaged("nothing of it can be read".to_owned()))
}

fn remove_snapshots(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn read(db: &Db, side: Option<&Tally>) -> Salvaged {
    let (mut records, mut broken_off, mut found) = (Vec::new(), Vec::new(), Tally::default());
    let known = db.tree_names();
    for kind in Kind::ALL.into_iter().filter(|kind| known.iter().any(|name| name == kind.name().as_bytes())) {
        let Ok(tree) = db.open_tree(kind.name()) else {
            broken_off.push(kind);
            continue;
        };
        let (entries, is_whole) = entries(&tree);
        if !is_whole {
            broken_off.push(kind);
        }
        for (key, bytes) in entries {
            found.add(kind, &key, &bytes);
            match super::parse(kind, &bytes) {
                Ok(stored) => records.push((kind, key, stored)),
                Err(_) => broken_off.push(kind),
            }
        }
    }
    broken_off.dedup();
    let noted = catch_unwind(AssertUnwindSafe(|| {
        let tree = known.iter().any(|name| name == TALLY_TREE.as_bytes()).then(|| db.open_tree(TALLY_TREE).ok()).flatten()?;
        tree.get(TALLY_KEY).ok().flatten().and_then(|bytes| Tally::from_bytes(&bytes).ok())
    }));
    let noted = noted.ok().flatten();
    let expected = [side, noted.as_ref()].into_iter().flatten().max_by_key(|tally| tally.generation).copied();
    Salvaged {
        // Without a side record nobody knows whether the newest writes are there.
        is_exact: side.is_some() && broken_off.is_empty() && expected.is_some_and(|expected| found.same_records(&expected)),
        expected: expected.map(|tally| (Kind::ALL.into_iter().zip(tally.counts).collect(), tally.generation)),
        found_write: noted.map(|tally| tally.generation),
        records,
        broken_off,
    }
}

/// The entries of a tree from both of its ends, up to where reading breaks off, and whether that was all of them.
fn entries(tree: &Tree) -> (BTreeMap<Vec<u8>, Vec<u8>>, bool) {
    let mut found = BTreeMap::new();
    let forwards = catch_unwind(AssertUnwindSafe(|| {
        for entry in tree.iter() {
            let Ok((key, bytes)) = entry else { return false };
            found.insert(key.to_vec(), bytes.to_vec());
        }
        true
    }));
    if forwards.is_ok_and(|is_whole| is_whole) {
        return (found, true);
    }
    let mut more = Vec::new();
    let _ = catch_unwind(AssertUnwindSafe(|| {
        for entry in tree.iter().rev() {
            let Ok((key, bytes)) = entry else { return };
            if found.contains_key(key.as_ref()) {
                return;
            }
            more.push((key.to_vec(), bytes.to_vec()));
        }
    }));
    found.extend(more);
    (found, false)
}

/// Puts the closed store in the folder `new` where `path` is, whose folder is kept under the name that is answered; `None` where there was none.
///
/// # Errors
/// When a folder cannot be renamed. Then `path` is as it was.
pub fn put_in_place(new: &Path, path: &Path, aside: &Path) -> Result<Option<PathBuf>, StoreError> {
    let fail = |what: &str, error: &io::Error| {
        StoreError::Unavailable(format!("{what}: {error}. The new store is whole in {}; {} is as it was", new.display(), path.display()))
    };
    let is_there = path.exists();
    if is_there {
        fs::rename(path, aside).map_err(|error| fail("the old store's folder cannot be renamed", &error))?;
    }
    if let Err(error) = fs::rename(new, path) {
        if is_there {
            fs::rename(aside, path).map_err(|error| fail("the old store's folder cannot be renamed back", &error))?;
        }
        return Err(fail("the new store's folder cannot be renamed", &error));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| fail("the folder cannot be synced", &error))?;
    Ok(is_there.then(|| aside.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::put;
    use crate::store::{Expect, Store};
    use std::fs::OpenOptions;

    async fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("store");
        let store = SledStore::open(&path).expect("opened");
        for round in 0..6u8 {
            let batch = (0..60u32).map(|number| put(Kind::Connection, &number.to_be_bytes(), Expect::Any, &[round; 3000])).collect();
            store.write(batch).await.expect("written");
        }
        store.close().await.expect("closed");
        (folder, path)
    }

    fn salvaged(path: &Path) -> Result<Salvaged, StoreError> {
        let folder = tempfile::tempdir().expect("folder");
        let copy = folder.path().join("copy");
        copy_folder(path, &copy).expect("copied");
        salvage(&copy)
    }

    #[tokio::test]
    async fn a_whole_store_is_read_exactly() {
        let (_kept, path) = written().await;
        let found = salvaged(&path).expect("read");
        assert!(found.is_exact && found.broken_off.is_empty());
        assert_eq!((found.records.len(), found.expected.expect("known").1), (60, 6));
    }

    #[tokio::test]
    async fn a_lost_side_record_leaves_the_records_and_a_doubt() {
        let (_kept, path) = written().await;
        fs::remove_file(path.join("attache-side")).expect("removed");
        let found = salvaged(&path).expect("read");
        assert_eq!(found.records.len(), 60);
        assert!(!found.is_exact, "nobody can tell whether a write is missing");
    }

    /// Whatever is cut off, what is salvaged is records that were once written, and the difference is told.
    #[tokio::test]
    async fn a_cut_log_gives_what_is_left_and_says_that_it_is_not_all() {
        let (_kept, path) = written().await;
        let length = fs::metadata(path.join("db")).expect("there").len();
        let mut salvaged_some = 0;
        for tenth in 1..10 {
            let (_copy_kept, copy) = {
                let folder = tempfile::tempdir().expect("folder");
                let copy = folder.path().join("store");
                copy_folder(&path, &copy).expect("copied");
                (folder, copy)
            };
            OpenOptions::new().write(true).open(copy.join("db")).expect("opened").set_len(length * tenth / 10).expect("cut");
            if SledStore::open(&copy).is_ok() {
                continue;
            }
            let before = fs::read(copy.join("attache-side")).expect("read");
            match salvaged(&copy) {
                Ok(found) => {
                    assert!(!found.is_exact, "cut at {tenth}/10");
                    salvaged_some += u32::from(!found.records.is_empty());
                    assert!(found.records.iter().all(|(_, _, stored)| stored.value.len() == 3000 && stored.value[0] < 6));
                    assert_eq!(found.expected.expect("the side record knows").0[&Kind::Connection], 60);
                }
                Err(error) => assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
            }
            assert_eq!(fs::read(copy.join("attache-side")).expect("read"), before, "the store itself is not touched");
        }
        assert!(salvaged_some > 0, "no cut left anything");
    }

    #[tokio::test]
    async fn the_old_folder_is_kept() {
        let (kept, path) = written().await;
        let (new, aside) = (kept.path().join("new"), kept.path().join("aside"));
        SledStore::open(&new).expect("opened").close().await.expect("closed");
        assert_eq!(put_in_place(&new, &path, &aside).expect("renamed"), Some(aside.clone()));
        assert!(!new.exists() && !SledStore::exists(&path) && SledStore::exists(&aside));
        assert!(put_in_place(&kept.path().join("none"), &aside, &kept.path().join("x")).is_err());
        assert!(SledStore::exists(&aside), "put back");
    }
}
