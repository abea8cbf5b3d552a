//! Opening a sled store: alone, in a folder of its own, and only if all that was acknowledged is still there.
//!
//! sled's recovery drops whatever it cannot read and calls that success, so nothing it recovers is believed before it was compared: its
//! records with the tally that the same transactions wrote, and that tally with the side record. A refused store is left as it stands
//! after sled's recovery, and stays refused.

use super::side::{self, BadSide, Side};
use super::tally::{BadTally, Tally};
use crate::store::{Kind, StoreError};
use ::sled::{Db, Error, Tree};
use rustix::fs::{FlockOperation, Mode, StatVfsMountFlags, flock, statvfs};
use rustix::process::umask;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const LOCK_NAME: &str = "attache-lock";
const DATA_NAME: &str = "db";
/// Where a snapshot that sled did not finish writing is put aside.
const ASIDE_PREFIX: &str = "attache-aside.";

/// sled's page cache. Records are read once and then kept by their keeper, so a small one will do (sled's default is 1 GiB).
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// sled writes in segments of this size, and puts what is over a quarter of it in a file of its own, which it never syncs. A page holds up
/// to 17 records, so this size keeps pages of the largest records ([`crate::store::VALUE_LEN_MAX`]) in the log.
pub(super) const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Below this much free space a write is not begun: sled does not outlive a write that the disk refuses half-way.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// A store that is dropped late holds its lock a little longer; so opening tries for a second.
const LOCK_TRIES: u32 = 20;
/// How often sled may fail at reading the store before that is taken for damage.
const OPEN_TRIES: u32 = 2;
const LOCK_WAIT: Duration = Duration::from_millis(50);

const WAY_OUT: &str = "Ways out: `attache store restore FILE --force` puts a backup in its place; `attache store repair` salvages what can still be read and says \
     what is lost; or move the folder aside to start empty (all end users then connect anew)";

/// The key of the tally in the tree of the same name.
pub(super) const TALLY_KEY: &[u8] = b"tally";
pub(super) const TALLY_TREE: &str = "attache-tally";

/// An open sled database with everything the store needs of it.
pub(super) struct Opened {
    pub(super) db: Db,
    /// One tree a kind in the order of [`Kind::ALL`], then the tally's tree: what one transaction spans.
    pub(super) trees: Vec<Tree>,
    /// The log itself, because sled's flush ends in `sync_file_range`, which is no fsync.
    pub(super) data: File,
    pub(super) side: Side,
    /// What it held when it was opened.
    pub(super) tally: Tally,
}

impl Opened {
    pub(super) fn tree(&self, kind: Kind) -> &Tree {
        &self.trees[kind_index(kind)]
    }
}

pub(super) fn kind_index(kind: Kind) -> usize {
    Kind::ALL.iter().position(|each| *each == kind).unwrap_or_default()
}

/// The exclusive right to a store's folder, until dropped.
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock, which ends when it is closed")] File);

/// Makes the folder if need be, and takes it for this process alone.
pub(super) fn lock(path: &Path) -> Result<Lock, StoreError> {
    make_folder(path).map_err(|error| unavailable(path, "its folder cannot be used", &error))?;
    refuse_foreign_folder(path)?;
    lock_as_it_is(path)
}

/// Takes the folder for this process alone, whatever is in it.
pub(super) fn lock_as_it_is(path: &Path) -> Result<Lock, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path.join(LOCK_NAME)).map_err(|error| unavailable(path, "its lock file cannot be opened", &error))?;
    for _ in 0..LOCK_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => wait(),
            Err(error) => return Err(unavailable(path, "it cannot be locked", &error.into())),
        }
    }
    Err(StoreError::Unavailable(format!("another attache has the store {} open: stop it first", path.display())))
}

/// Opens the database under a lock that the caller holds.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    put_unfinished_snapshots_aside(path).map_err(|error| unavailable(path, "an unfinished snapshot cannot be put aside", &error))?;
    // sled asserts where it should refuse, so damage may also show as a panic. It repairs its log before it comes to that, and then may
    // read it the next time; what it then shows is compared like anything else.
    for _ in 0..OPEN_TRIES {
        let (side, expected) = expect(path)?;
        match catch_unwind(AssertUnwindSafe(|| recover(path, side, expected))) {
            Ok(result) => return result,
            Err(_) => tracing::warn!(store.path = %path.display(), "sled failed while it read the store"),
        }
    }
    let (_, expected) = expect(path)?;
    Err(lost(path, &expected, "sled fails when it reads the store"))
}

/// The side record, and what it says must be there; an empty one for a new store.
fn expect(path: &Path) -> Result<(Side, Tally), StoreError> {
    let (side, expected) = match Side::read(path) {
        Ok(Some(found)) => found,
        Ok(None) => (make_side(path)?, Tally::default()),
        Err(BadSide::Io(error)) => return Err(unavailable(path, "its side record cannot be read", &error)),
        Err(BadSide::Newer) => return Err(damaged(path, "it was written by a newer attache: run that version")),
        Err(BadSide::Garbled) => return Err(damaged(path, &format!("its side record ({}) is garbled. {WAY_OUT}", side::NAME))),
    };
    if expected.generation > 0 && !path.join(DATA_NAME).exists() {
        return Err(lost(path, &expected, "the file `db` is gone"));
    }
    Ok((side, expected))
}

/// Whether anything was ever written into the store in `path`. Where in doubt, it was.
pub(super) fn exists(path: &Path) -> bool {
    match Side::read(path) {
        Ok(Some((_, tally))) => tally.generation > 0,
        Ok(None) => path.join(DATA_NAME).exists(),
        Err(_) => true,
    }
}

/// Whether the disk has room for another group of writes.
pub(super) fn room(path: &Path) -> Result<(), StoreError> {
    // A file system that cannot say is taken at its writes' word.
    let Ok(disk) = statvfs(path) else { return Ok(()) };
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(StoreError::Unavailable(format!("the disk of {} is read-only", path.display())));
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if disk.f_blocks > 0 && free < FREE_BYTES_MIN {
        let (free, least) = (free / 1024 / 1024, FREE_BYTES_MIN / 1024 / 1024);
        return Err(StoreError::Unavailable(format!("the disk of {} is full: {free} MiB free, {least} are needed", path.display())));
    }
    Ok(())
}

/// Waits until sled's own lock is free, which its background threads may hold for a moment after the last handle is gone.
pub(super) fn await_release(path: &Path) {
    let Ok(file) = File::open(path.join(DATA_NAME)) else { return };
    for _ in 0..LOCK_TRIES {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return;
        }
        wait();
    }
}

/// What an error of sled's means to the store's users. Its debug form is left out: it may hold bytes of records.
pub(super) fn explain(path: &Path, error: &Error) -> StoreError {
    match error {
        Error::Io(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            damaged(path, &format!("it is cut short. {WAY_OUT}"))
        }
        Error::Io(error) => unavailable(path, "the disk refuses", error),
        Error::Corruption { .. } | Error::CollectionNotFound(_) | Error::ReportableBug(_) => {
            damaged(path, &format!("sled cannot read it. {WAY_OUT}"))
        }
        Error::Unsupported(why) => damaged(path, &format!("sled cannot open it ({why}). {WAY_OUT}")),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Refuses a folder that holds something, but not a whole store: one whose side record was lost, or one that is not ours to close to others.
fn refuse_foreign_folder(path: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(path).map_err(|error| unavailable(path, "its folder cannot be read", &error))?;
    let names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    if !names.iter().any(|name| name == side::NAME) {
        if names.iter().any(|name| name == DATA_NAME) {
            return Err(damaged(
                path,
                &format!("its side record ({}) is gone, so nothing tells whether records are missing. {WAY_OUT}", side::NAME),
            ));
        }
        let ours = [LOCK_NAME, side::TEMPORARY_NAME, "lost+found"];
        if let Some(other) = names.iter().find(|name| !ours.iter().any(|own| name.as_os_str() == *own)) {
            let other = other.to_string_lossy();
            return Err(StoreError::Unavailable(format!(
                "{} holds other files ({other}): give the store a folder of its own",
                path.display()
            )));
        }
    }
    // Where the folder is another's (a mounted volume, say), its owner has decided who enters.
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o700)) {
        tracing::warn!(store.path = %path.display(), %error, "the store's folder cannot be closed to other users");
    }
    Ok(())
}

fn make_side(path: &Path) -> Result<Side, StoreError> {
    Side::make(path).map_err(|error| unavailable(path, "its side record cannot be made", &error))
}

/// sled takes a snapshot that it had not finished for the newest one, and fails on it. It is only ever a shortcut for reading the log, so the
/// store is whole without it.
pub(super) fn put_unfinished_snapshots_aside(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(store.path = %path.display(), file = %name, "put an unfinished snapshot aside");
            fs::rename(path.join(&*name), path.join(format!("{ASIDE_PREFIX}{name}")))?;
        }
    }
    Ok(())
}

fn recover(path: &Path, mut side: Side, expected: Tally) -> Result<Opened, StoreError> {
    let db = open_sled(path)?;
    let fail = |error: Error| explain(path, &error);
    if expected.generation > 0 && !db.tree_names().iter().any(|name| name == TALLY_TREE.as_bytes()) {
        return Err(lost(path, &expected, "sled found no records"));
    }
    let names = Kind::ALL.iter().map(|kind| kind.name()).chain([TALLY_TREE]);
    let trees = names.map(|name| db.open_tree(name)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let noted = match trees[Kind::ALL.len()].get(TALLY_KEY).map_err(fail)? {
        None => Tally::default(),
        Some(bytes) => Tally::from_bytes(&bytes).map_err(|bad| match bad {
            BadTally::Newer => damaged(path, "it was written by a newer attache: run that version"),
            BadTally::Garbled => lost(path, &expected, "its tally is garbled"),
        })?,
    };
    let mut found = count(&trees).map_err(fail)?;
    found.generation = noted.generation;
    if !found.same_records(&noted) {
        return Err(lost(path, &noted, &format!("sled found {}", found.describe())));
    }
    if noted.generation < expected.generation || (noted.generation == expected.generation && !noted.same_records(&expected)) {
        return Err(lost(path, &expected, &format!("sled found {} as of write {}", noted.describe(), noted.generation)));
    }
    // What was recovered may so far lie in the page cache alone; it is shown, and noted in the side record, only once it is on disk.
    db.flush().map_err(fail)?;
    let synced = OpenOptions::new().read(true).write(true).open(path.join(DATA_NAME)).and_then(|data| {
        data.sync_all()?;
        close_files(path)?;
        File::open(path)?.sync_all()?;
        if noted.generation > expected.generation {
            side.write(&noted)?;
        }
        Ok(data)
    });
    let data = synced.map_err(|error| unavailable(path, "it cannot be synced", &error))?;
    Ok(Opened { db, trees, data, side, tally: noted })
}

pub(super) fn open_sled(path: &Path) -> Result<Db, StoreError> {
    let config = || ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).segment_size(SEGMENT_BYTES).flush_every_ms(None);
    let mut tries = LOCK_TRIES;
    loop {
        match with_private_umask(|| config().open()) {
            Ok(db) => return Ok(db),
            // sled has no error of its own for this.
            Err(Error::Io(error)) if error.to_string().starts_with("could not acquire lock") => {
                tries = tries.saturating_sub(1);
                if tries == 0 {
                    return Err(StoreError::Unavailable(format!("another process has the store {} open: stop it first", path.display())));
                }
                wait();
            }
            Err(error) => return Err(explain(path, &error)),
        }
    }
}

/// sled makes its files with whatever the umask leaves, and makes all of them as it opens. The umask belongs to the whole process: one
/// opening at a time may change it, and a file that another thread makes meanwhile is at worst closed to others too.
fn with_private_umask<T>(open: impl FnOnce() -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::RWXG | Mode::RWXO);
    let result = catch_unwind(AssertUnwindSafe(open));
    umask(before);
    drop(guard);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Takes files that an older umask left open from the reach of others.
fn close_files(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let mode = if entry.file_type()?.is_dir() { 0o700 } else { 0o600 };
        if entry.metadata()?.permissions().mode() & 0o077 != 0 && entry.file_name() != "lost+found" {
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

fn count(trees: &[Tree]) -> ::sled::Result<Tally> {
    let mut tally = Tally::default();
    for (kind, tree) in Kind::ALL.into_iter().zip(trees) {
        for entry in tree.iter() {
            let (key, bytes) = entry?;
            tally.add(kind, &key, &bytes);
        }
    }
    Ok(tally)
}

fn lost(path: &Path, expected: &Tally, why: &str) -> StoreError {
    damaged(path, &format!("it must hold {} as of write {}, but {why}. {WAY_OUT}", expected.describe(), expected.generation))
}

fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::Damaged(format!("the store {}: {why}", path.display()))
}

fn unavailable(path: &Path, what: &str, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the store {}: {what}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "opening and closing serve no calls, and happen on a thread that may block")]
fn wait() {
    std::thread::sleep(LOCK_WAIT);
}
