//! Tests of opening: whatever happens to a store's files, it shows all its records or is refused, and never quietly shows fewer.

use super::open::{SEGMENT_BYTES, open};
use super::{SledStore, side};
use crate::base::ids::{ConnectionKey, random_bytes};
use crate::store::contract::{delete, put};
use crate::store::{Expect, KEY_LEN_MAX, Kind, Records, Store, StoreError, VALUE_LEN_MAX, codec, seal};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

type Shown = Vec<(Kind, Vec<u8>, u64, Vec<u8>)>;

async fn show(store: &SledStore) -> Shown {
    let mut shown = Vec::new();
    for kind in Kind::ALL {
        let found = store.scan(kind, b"", None, usize::MAX).await.expect("scanned");
        shown.extend(found.into_iter().map(|(key, stored)| (kind, key, stored.version, stored.value)));
    }
    shown
}

/// A closed store with enough history that its log holds dead entries, splits and several generations of each record.
async fn written() -> (TempDir, PathBuf, Shown) {
    written_with(700).await
}

/// The same, with so large records that sled moves between segments and uses old ones again.
async fn written_large() -> (TempDir, PathBuf, Shown) {
    written_with(30_000).await
}

async fn written_with(value_len: usize) -> (TempDir, PathBuf, Shown) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let store = SledStore::open(&path).expect("opened");
    for round in 0..8u32 {
        let batch = (0..60u32)
            .map(|number| put(Kind::Connection, format!("k{number:03}").as_bytes(), Expect::Any, &vec![round as u8; value_len]))
            .collect();
        store.write(batch).await.expect("written");
        store.write(vec![put(Kind::Intent, &round.to_le_bytes(), Expect::Absent, b"intent")]).await.expect("written");
        store.write(vec![delete(Kind::Connection, b"k007", Expect::Any)]).await.expect("deleted");
    }
    let shown = show(&store).await;
    store.close().await.expect("closed");
    (folder, path, shown)
}

fn copy(from: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let to = folder.path().join("store");
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(&to).status().expect("cp runs");
    assert!(copied.success());
    (folder, to)
}

/// Opens twice, because a first opening lets sled repair what it finds. Tells whether it opened at all.
async fn all_or_refused(path: &Path, expected: &Shown, what: &str) -> bool {
    let mut opened = Vec::new();
    for _ in 0..2 {
        match SledStore::open(path) {
            Ok(store) => {
                assert!(show(&store).await == *expected, "{what}: the store opened without all of its records");
                store.close().await.expect("closed");
                opened.push(true);
            }
            Err(error) => {
                assert!(!error.to_string().contains("k00"), "{what}: {error}");
                opened.push(false);
            }
        }
    }
    // The other way round may be: sled's repair at the first opening may be what lets the second see everything.
    assert!(opened[1] || !opened[0], "{what}: opened once, and then no more");
    opened[0]
}

#[tokio::test]
async fn a_store_shows_its_records_again() {
    let (_kept, path, shown) = written().await;
    assert_eq!(shown.len(), 59 + 8);
    assert!(all_or_refused(&path, &shown, "untouched").await);
}

#[tokio::test]
async fn a_cut_log_is_refused() {
    check_cuts(written().await).await;
    check_cuts(written_large().await).await;
}

async fn check_cuts((_kept, path, shown): (TempDir, PathBuf, Shown)) {
    let length = fs::metadata(path.join("db")).expect("metadata").len();
    let mut refused = 0;
    for twentieth in 0..20 {
        let (_kept, path) = copy(&path);
        let cut = length * twentieth / 20;
        OpenOptions::new().write(true).open(path.join("db")).expect("opened").set_len(cut).expect("cut");
        refused += u32::from(!all_or_refused(&path, &shown, &format!("cut at {cut} of {length}")).await);
    }
    assert!(refused >= 10, "only {refused} cuts were refused");
}

#[tokio::test]
async fn a_log_cut_by_a_few_bytes_is_refused() {
    let (_kept, path, shown) = written().await;
    // The log's end, without the padding that sled may leave behind it.
    let bytes = fs::read(path.join("db")).expect("read");
    let end = bytes.iter().rposition(|byte| *byte != bytes[bytes.len() - 1]).expect("written") + 1;
    for by in [1, 2, 17, 100, 1000] {
        let (_kept, path) = copy(&path);
        OpenOptions::new().write(true).open(path.join("db")).expect("opened").set_len((end - by) as u64).expect("cut");
        assert!(!all_or_refused(&path, &shown, &format!("cut by {by}")).await, "cut by {by} bytes, yet opened");
    }
}

#[tokio::test]
async fn overwritten_bytes_are_refused_or_did_not_matter() {
    check_overwritings(written().await).await;
    check_overwritings(written_large().await).await;
}

async fn check_overwritings((_kept, path, shown): (TempDir, PathBuf, Shown)) {
    let length = fs::metadata(path.join("db")).expect("metadata").len();
    let mut refused = 0;
    for _ in 0..20 {
        let (_kept, path) = copy(&path);
        let at = u64::from_le_bytes(random_bytes()) % length;
        let file = OpenOptions::new().write(true).open(path.join("db")).expect("opened");
        file.write_all_at(&random_bytes::<64>()[..usize::try_from((length - at).min(64)).expect("small")], at).expect("written");
        refused += u32::from(!all_or_refused(&path, &shown, &format!("overwritten at {at} of {length}")).await);
    }
    assert!(refused > 0, "no overwriting was noticed");
}

#[tokio::test]
async fn an_older_log_beside_a_newer_side_record_is_refused() {
    let (_kept, path, shown) = written().await;
    let (_older_kept, older) = copy(&path);
    let store = SledStore::open(&path).expect("opened");
    // The same number of records, in a newer version: a count alone would not tell.
    store.write(vec![put(Kind::Connection, b"k000", Expect::Any, b"rotated")]).await.expect("written");
    store.close().await.expect("closed");
    fs::copy(path.join(side::NAME), older.join(side::NAME)).expect("copied");
    assert!(!all_or_refused(&older, &shown, "older log").await);
}

#[tokio::test]
async fn lost_files_are_refused() {
    let (_kept, path, shown) = written().await;
    let check = async |files: &[&str], expected: &str| {
        let (_kept, path) = copy(&path);
        files.iter().for_each(|file| fs::remove_file(path.join(file)).expect("removed"));
        assert!(SledStore::exists(&path), "a key must not be made anew");
        assert!(!all_or_refused(&path, &shown, expected).await);
        let Err(StoreError::Damaged(why)) = SledStore::open(&path) else { panic!("{files:?}: not told as damage") };
        assert!(why.contains(expected) && why.contains("backup"), "{why}");
    };
    check(&["db"], "the file `db` is gone").await;
    check(&[side::NAME], "side record (attache-side) is gone").await;
    // sled's own settings are the same in every store, and its snapshot only saves reading the log.
    let (_kept, path) = copy(&path);
    for entry in fs::read_dir(&path).expect("listed") {
        let name = entry.expect("entry").file_name().into_string().expect("text");
        if name.starts_with("snap.") || name == "conf" {
            fs::remove_file(path.join(name)).expect("removed");
        }
    }
    assert!(all_or_refused(&path, &shown, "no snapshot").await);
}

#[tokio::test]
async fn a_garbled_side_record_is_refused() {
    let (_kept, path, shown) = written().await;
    fs::write(path.join(side::NAME), b"garbage").expect("written");
    assert!(SledStore::exists(&path));
    assert!(!all_or_refused(&path, &shown, "garbled side record").await);
}

#[tokio::test]
async fn a_side_record_that_lags_by_a_crash_is_caught_up() {
    let (_kept, path, _) = written().await;
    let before = fs::read(path.join(side::NAME)).expect("read");
    let store = SledStore::open(&path).expect("opened");
    store.write(vec![put(Kind::Session, b"late", Expect::Any, b"v")]).await.expect("written");
    let shown = show(&store).await;
    store.close().await.expect("closed");
    let after = fs::read(path.join(side::NAME)).expect("read");
    fs::write(path.join(side::NAME), &before).expect("written");
    assert!(all_or_refused(&path, &shown, "lagging side record").await);
    let (_, caught_up) = side::Side::read(&path).ok().flatten().expect("read");
    fs::write(path.join(side::NAME), &after).expect("written");
    assert_eq!(side::Side::read(&path).ok().flatten().expect("read").1, caught_up);
}

#[tokio::test]
async fn an_unfinished_snapshot_is_put_aside() {
    let (_kept, path, shown) = written().await;
    for content in [&b""[..], b"half a snapshot, not yet whole"] {
        fs::write(path.join("snap.FFFFFFFFFFFFFFFF.generating"), content).expect("written");
        assert!(all_or_refused(&path, &shown, "unfinished snapshot").await);
        assert_eq!(fs::read(path.join("attache-aside.snap.FFFFFFFFFFFFFFFF.generating")).expect("kept aside"), content);
    }
}

#[tokio::test]
async fn a_crash_while_the_store_was_made_leaves_an_empty_one() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    assert!(!SledStore::exists(&path));
    SledStore::open(&path).expect("opened").close().await.expect("closed");
    assert!(!SledStore::exists(&path), "nothing was ever written");
    fs::remove_file(path.join("db")).expect("removed");
    let store = SledStore::open(&path).expect("opened");
    store.write(vec![put(Kind::Session, b"k", Expect::Any, b"v")]).await.expect("written");
    store.close().await.expect("closed");
    assert!(SledStore::exists(&path));
}

#[tokio::test]
async fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
    fs::write(folder.path().join("thesis.tex"), b"precious").expect("written");
    let error = SledStore::open(folder.path()).err().expect("refused").to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    assert_eq!(fs::metadata(folder.path()).expect("metadata").permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn a_second_opener_is_told_and_a_closed_store_is_free() {
    let (_kept, path, shown) = written().await;
    let store = SledStore::open(&path).expect("opened");
    let error = SledStore::open(&path).err().expect("refused").to_string();
    assert!(error.contains("another attache has the store"), "{error}");
    store.close().await.expect("closed");
    // Free the moment that close returns: neither our lock nor sled's is still held.
    drop(open(&path).expect("opened"));
    // Dropped without a close, it frees itself within the time that opening tries for.
    let store = SledStore::open(&path).expect("opened");
    store.write(vec![put(Kind::Connection, b"k000", Expect::Any, &[7; 700])]).await.expect("written");
    drop(store);
    let store = SledStore::open(&path).expect("opened");
    assert_eq!(show(&store).await.len(), shown.len());
}

#[tokio::test]
async fn files_are_the_owners_alone() {
    let (_kept, path, _) = written().await;
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    let check = || {
        assert_eq!(mode(&path), 0o700);
        for entry in fs::read_dir(&path).expect("listed") {
            let entry = entry.expect("entry").path();
            assert_eq!(mode(&entry), if entry.is_dir() { 0o700 } else { 0o600 }, "{}", entry.display());
        }
    };
    check();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
    fs::set_permissions(path.join("db"), fs::Permissions::from_mode(0o644)).expect("changed");
    SledStore::open(&path).expect("opened").close().await.expect("closed");
    check();
}

#[tokio::test]
async fn tokens_are_nowhere_in_the_folder() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let records = Records::new(SledStore::open(&path).expect("opened"), seal::Sealer::new(&[seal::SealingKey::generate()]));
    let mut connection = codec::tests::full(ConnectionKey::new("google", "megan", "default"), "CANARY-access");
    connection.refresh_token = Some("CANARY-refresh".into());
    records.put_connection(&connection, Expect::Absent).await.expect("written");
    records.put_connection(&connection, Expect::Any).await.expect("written");
    records.delete_connection(&connection.key).await.expect("deleted");
    records.put_connection(&connection, Expect::Absent).await.expect("written");
    records.close().await.expect("closed");
    SledStore::open(&path).expect("opened").close().await.expect("closed");
    let mut folders = vec![path];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = fs::read(&path).expect("read");
            assert!(!bytes.windows(6).any(|bytes| bytes == b"CANARY"), "{}", path.display());
        }
    }
    assert!(files >= 4, "{files} files were looked at");
}

#[tokio::test]
async fn the_largest_records_stay_in_the_log() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let store = SledStore::open(&path).expect("opened");
    for number in 0..40u8 {
        let key = [&vec![b'k'; KEY_LEN_MAX - 1][..], &[number]].concat();
        store.write(vec![put(Kind::Connection, &key, Expect::Any, &vec![number; VALUE_LEN_MAX])]).await.expect("written");
        // sled never syncs these, so there must be none.
        assert_eq!(fs::read_dir(path.join("blobs")).expect("listed").count(), 0, "after {number}");
    }
    store.close().await.expect("closed");
    let store = SledStore::open(&path).expect("opened");
    assert_eq!(show(&store).await.len(), 40);
}

#[tokio::test]
async fn rewriting_does_not_grow_the_log_for_ever() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let store = SledStore::open(&path).expect("opened");
    // 200 MB in all, over and over the same 20 records.
    for round in 0..200u32 {
        let batch =
            (0..20u32).map(|number| put(Kind::Connection, &number.to_le_bytes(), Expect::Any, &vec![round as u8; VALUE_LEN_MAX])).collect();
        store.write(batch).await.expect("written");
    }
    let length = fs::metadata(path.join("db")).expect("metadata").len();
    assert!(length <= 16 * SEGMENT_BYTES as u64, "{} MiB", length / 1024 / 1024);
}
