//! Secret files (the encryption key, the admin token): read, or made once at the first start.
//!
//! A file is made whole or not at all: written and synced under a temporary name with mode 0600, then linked to its own name, which fails
//! if something is already there. A missing key beside a store that holds records is refused: a new key would make them unreadable.

use crate::base::ids::random_id;
use crate::base::secret::Secret;
use crate::store::seal::{BadKey, SealingKey};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest secret file that is read.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// Where a secret came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Made just now: tell the operator to back it up, apart from the store.
    Now,
    /// Read from the file that was there, with a warning to log if others can read that file too.
    Before { warning: Option<String> },
}

/// Why there is no secret. Messages name the file, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} cannot be made: {source}")]
    Make { path: PathBuf, source: io::Error },
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    #[error(
        "the encryption key file {path} does not exist, but the store already holds records that only its key opens. Put the file back from \
         its backup; or, if it is lost for good, move the store's folder aside to start empty (all end users then connect anew)"
    )]
    MissingBesideStore { path: PathBuf },
    #[error("{path} is empty")]
    Empty { path: PathBuf },
    #[error("{path} is no secret file: it is not text, or over 64 KiB")]
    NotText { path: PathBuf },
    #[error("{path}: {source}")]
    BadKey { path: PathBuf, source: BadKey },
}

/// The encryption key in `path`; made if the file is missing and no store with records is there (`store_exists`) to need the lost one.
pub fn load_or_make_key(path: &Path, store_exists: bool) -> Result<(SealingKey, Made), KeyFileError> {
    let (text, made) = load_or_make(path, || SealingKey::generate().to_base64(), !store_exists).map_err(|error| match error {
        KeyFileError::Missing { path } => KeyFileError::MissingBesideStore { path },
        other => other,
    })?;
    match SealingKey::from_base64(text.expose()) {
        Ok(key) => Ok((key, made)),
        Err(source) => Err(KeyFileError::BadKey { path: path.to_owned(), source }),
    }
}

/// The secret in `path`, its trailing newline cut. A missing file is made of `make`'s secret where `may_make`, else refused.
pub fn load_or_make(path: &Path, make: impl FnOnce() -> Secret, may_make: bool) -> Result<(Secret, Made), KeyFileError> {
    match load(path) {
        Err(KeyFileError::Missing { .. }) if may_make => {}
        Err(error) => return Err(error),
        Ok((secret, warning)) => return Ok((secret, Made::Before { warning })),
    }
    let secret = make();
    match place(path, &secret) {
        Ok(()) => Ok((secret, Made::Now)),
        // Another process was quicker: its secret is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(path).map(|(secret, warning)| (secret, Made::Before { warning }))
        }
        Err(source) => Err(KeyFileError::Make { path: path.to_owned(), source }),
    }
}

fn load(path: &Path) -> Result<(Secret, Option<String>), KeyFileError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { path: path.to_owned() },
        _ => KeyFileError::Read { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    let too_long = || KeyFileError::NotText { path: path.to_owned() };
    let capacity = usize::try_from(metadata.len().min(FILE_LEN_MAX)).map_err(|_| too_long())? + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(too_long());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| too_long())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(KeyFileError::Empty { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o777;
    // Only a warning: orchestrators mount secrets with a mode of their own, in a file system that nobody else sees.
    let warning =
        (mode & 0o077 != 0).then(|| format!("{} can be read by others than its owner (mode {mode:04o}): chmod 600 it", path.display()));
    Ok((Secret::new(text), warning))
}

/// Puts the secret's file in its place, whole and synced, unless something is there.
fn place(path: &Path, secret: &Secret) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = folder.join(format!(".{}", random_id("attache-secret")));
    let placed = write_new(&temporary, secret).and_then(|()| link(&temporary, path, secret));
    let removed = fs::remove_file(&temporary);
    placed?;
    removed?;
    File::open(folder)?.sync_all()
}

fn link(temporary: &Path, path: &Path, secret: &Secret) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        // A file system without hard links: exclusive still, though a crash in between may leave a file that is cut short (and refused).
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => write_new(path, secret),
        linked => linked,
    }
}

fn write_new(path: &Path, secret: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("attache.key");
        let (made, how) = load_or_make_key(&path, false).expect("made");
        assert_eq!(how, Made::Now);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing temporary is left");
        for store_exists in [false, true] {
            let (read, how) = load_or_make_key(&path, store_exists).expect("read");
            assert_eq!((read.id(), how), (made.id(), Made::Before { warning: None }));
        }
    }

    #[test]
    fn a_lost_key_beside_a_store_is_never_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("attache.key");
        let error = load_or_make_key(&path, true).expect_err("refused");
        assert!(matches!(error, KeyFileError::MissingBesideStore { .. }));
        assert!(error.to_string().contains("backup"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let check = |content: &[u8], expected: &str| {
            let path = folder.path().join("key");
            fs::write(&path, content).expect("written");
            let error = load_or_make_key(&path, false).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(fs::read(&path).expect("read"), content);
        };
        check(b"", "is empty");
        check(b"\n", "is empty");
        check(b"hunter2!", "not base64");
        check(b"aHVudGVyMg==", "holds 7 bytes");
        check(b"\xff\xfe", "not text");
        check(&vec![b'a'; 70_000], "64 KiB");
    }

    #[test]
    fn any_secret_can_be_kept_so() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        assert!(matches!(load_or_make(&path, || "t".into(), false), Err(KeyFileError::Missing { .. })));
        let (secret, made) = load_or_make(&path, || "first".into(), true).expect("made");
        assert_eq!((secret.expose(), made), ("first", Made::Now));
        let (secret, _) = load_or_make(&path, || "second".into(), true).expect("read");
        assert_eq!(secret.expose(), "first");
        fs::write(&path, " mounted\r\n").expect("written");
        assert_eq!(load_or_make(&path, || "x".into(), true).expect("read").0.expose(), " mounted");
    }

    #[test]
    fn a_file_that_others_can_read_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        load_or_make(&path, || "t".into(), true).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let (_, made) = load_or_make(&path, || "t".into(), true).expect("read");
        let Made::Before { warning: Some(warning) } = made else { panic!("no warning: {made:?}") };
        assert!(warning.contains("0644"), "{warning}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let error = load_or_make(Path::new("/nonexistent/folder/key"), || "t".into(), true).expect_err("refused");
        assert!(matches!(error, KeyFileError::Make { .. }), "{error}");
    }

    #[test]
    fn of_two_makers_one_wins() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        let read = std::thread::scope(|scope| {
            let make = |number: u32| load_or_make(&path, || number.to_string().into(), true).expect("made or read").0;
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || make(number))).collect();
            threads.into_iter().map(|thread| thread.join().expect("joined").expose().to_owned()).collect::<Vec<_>>()
        });
        assert!(read.iter().all(|text| *text == read[0]), "{read:?}");
    }
}
