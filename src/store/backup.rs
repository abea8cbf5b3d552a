//! A backup file: the sealed records of a store as JSON lines, with a last line that tells a whole file from a cut one.
//!
//! The first line says the version of the form; each further line is one record, its key and sealed value in base64; the last line has the
//! counts, the keys that are needed to open it, and the SHA-256 of all bytes before it. Values stay sealed, and their seal holds them to their
//! keys, so that a record cannot be forged; names of providers and end users, which are keys, are readable. Left out are connect sessions: a
//! link that was spent since must not be good again. Intents come before connections, so that a token that rotates between the two is either
//! there or marked.

use crate::base::clock::UnixMillis;
use crate::store::pages::{Source, Walk};
use crate::store::seal::KeyId;
use crate::store::{KEY_LEN_MAX, Kind, StoreError, Stored, VALUE_LEN_MAX};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

/// The version of the form that is written; older ones are read too, once there are any.
const VERSION: u64 = 1;

/// What is backed up, in this order.
pub const KINDS: [Kind; 3] = [Kind::Intent, Kind::Connection, Kind::Outbox];

/// The longest line: a record with the longest key and value, in base64, and its member names. The last line names each key, so it has room too.
const LINE_BYTES_MAX: u64 = ((KEY_LEN_MAX + VALUE_LEN_MAX) * 4 / 3 + 4096) as u64;

/// Why there is no backup, or why it cannot be read. Never quotes what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the backup file: {0}")]
    Io(#[from] io::Error),
    #[error("this is no backup of attache's")]
    Foreign,
    #[error("the backup was written by a newer attache (form {0}; this one reads up to {VERSION}): use that version")]
    Newer(u64),
    #[error("the backup is cut short: its last line is missing. Use another backup")]
    Cut,
    #[error("line {0} of the backup is not what was written: the file is damaged. Use another backup")]
    Damaged(u64),
    #[error("the backup's checksum does not fit: the file is damaged. Use another backup")]
    Checksum,
}

/// What a whole backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub made_at: String,
    pub records: BTreeMap<Kind, u64>,
    /// How many records each key has sealed.
    pub keys: BTreeMap<String, u64>,
}

impl Summary {
    fn count(&mut self, kind: Kind, value: &[u8]) {
        *self.records.entry(kind).or_default() += 1;
        // What is no envelope is nobody's; the record is kept as it is, for whoever wants to look at it.
        let id = KeyId::of_envelope(value).map_or_else(|| "none".to_owned(), |id| id.to_string());
        *self.keys.entry(id).or_default() += 1;
    }

    pub fn total(&self) -> u64 {
        self.records.values().sum()
    }

    /// `3 connections, 1 intents`.
    pub fn describe(&self) -> String {
        let counts = KINDS.iter().map(|kind| (kind, self.records.get(kind).copied().unwrap_or(0)));
        let told: Vec<_> = counts.filter(|(kind, count)| *count > 0 || **kind == Kind::Connection).collect();
        told.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect::<Vec<_>>().join(", ")
    }
}

/// Writes the whole backup into a temporary file beside `path`, syncs it, and only then gives it its name.
///
/// # Errors
/// When `path` exists, the source cannot be read, or the disk refuses. Nothing is left behind then.
pub async fn write(source: &dyn Source, path: &Path, made_at: UnixMillis, replace: bool) -> Result<Summary, BackupError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Mode 0600, as this crate makes its files.
    let mut file = tempfile::Builder::new().prefix(".attache-backup").tempfile_in(folder)?;
    let summary = write_to(source, BufWriter::new(file.as_file_mut()), made_at).await?;
    file.as_file().sync_all()?;
    if replace { file.persist(path) } else { file.persist_noclobber(path) }.map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(summary)
}

async fn write_to(source: &dyn Source, into: impl Write, made_at: UnixMillis) -> Result<Summary, BackupError> {
    let mut lines = Lines { into, hash: digest::Context::new(&digest::SHA256) };
    let mut summary = Summary { made_at: made_at.to_rfc3339(), ..Summary::default() };
    lines.write(&json!({"attache_backup": VERSION, "made_at": summary.made_at, "attache": env!("CARGO_PKG_VERSION")}))?;
    for kind in KINDS {
        let mut walk = Walk::new(source, kind);
        while let Some((key, Stored { version, value })) = walk.next().await? {
            summary.count(kind, &value);
            let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
            lines.write(&json!({"kind": kind.name(), "key": key, "version": version, "value": value}))?;
        }
    }
    let records: serde_json::Map<String, Value> = summary.records.iter().map(|(kind, n)| (kind.name().to_owned(), (*n).into())).collect();
    let sha256 = hex(lines.hash.clone().finish().as_ref());
    lines.write(&json!({"end": {"records": records, "keys": summary.keys, "sha256": sha256}}))?;
    lines.into.flush()?;
    Ok(summary)
}

/// Lines that are hashed as they are written.
struct Lines<W> {
    into: W,
    hash: digest::Context,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        self.hash.update(line.as_bytes());
        self.into.write_all(line.as_bytes())
    }
}

/// A backup file that was read through once and found whole.
pub struct Backup {
    file: File,
    pub summary: Summary,
}

/// One record of a backup.
pub struct Saved {
    pub kind: Kind,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Backup {
    /// Opens a file and reads it through, so that a cut or damaged one is refused before anything is done with it.
    ///
    /// # Errors
    /// When it is not a whole backup of a form that is known.
    pub fn open(path: &Path) -> Result<Backup, BackupError> {
        let mut backup = Backup { file: File::open(path)?, summary: Summary::default() };
        backup.summary = backup.read(|_| Ok(()))?;
        Ok(backup)
    }

    /// Hands on each record, in the order of the file.
    ///
    /// # Errors
    /// What `each` fails with; and as [`Backup::open`], if the file was changed since.
    pub fn each(&mut self, each: impl FnMut(Saved) -> Result<(), BackupError>) -> Result<(), BackupError> {
        match self.read(each)? == self.summary {
            true => Ok(()),
            false => Err(BackupError::Checksum),
        }
    }

    fn read(&mut self, mut each: impl FnMut(Saved) -> Result<(), BackupError>) -> Result<Summary, BackupError> {
        self.file.rewind()?;
        let mut input = BufReader::new(&self.file);
        let (mut hash, mut number) = (digest::Context::new(&digest::SHA256), 1);
        let first = line(&mut input)?.ok_or(BackupError::Foreign)?;
        let head: Value = serde_json::from_slice(&first).map_err(|_| BackupError::Foreign)?;
        match head["attache_backup"].as_u64() {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(BackupError::Newer(version)),
            _ => return Err(BackupError::Foreign),
        }
        hash.update(&first);
        let mut found = Summary { made_at: head["made_at"].as_str().unwrap_or_default().to_owned(), ..Summary::default() };
        loop {
            number += 1;
            let bytes = line(&mut input)?.ok_or(BackupError::Cut)?;
            let is_whole = bytes.ends_with(b"\n");
            let value: Value =
                serde_json::from_slice(&bytes).map_err(|_| if is_whole { BackupError::Damaged(number) } else { BackupError::Cut })?;
            if let Some(end) = value.get("end") {
                let fits = end["sha256"].as_str() == Some(&*hex(hash.finish().as_ref()));
                return if fits && line(&mut input)?.is_none() { Ok(found) } else { Err(BackupError::Checksum) };
            }
            hash.update(&bytes);
            let saved = record(&value).ok_or(BackupError::Damaged(number))?;
            found.count(saved.kind, &saved.value);
            each(saved)?;
        }
    }
}

/// One line with its end; `None` at the end of the file. A line that is too long for a record is handed on cut, and then is no JSON.
fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

fn record(value: &Value) -> Option<Saved> {
    let bytes = |name: &str| STANDARD.decode(value[name].as_str()?).ok();
    Some(Saved { kind: Kind::named(value["kind"].as_str()?)?, key: bytes("key")?, value: bytes("value")? })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ConnectionKey;
    use crate::store::codec::tests::full;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::{Sealer, SealingKey};
    use crate::store::{Expect, Intent, Records, SessionWrite};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    async fn records() -> (SealingKey, Records) {
        let key = SealingKey::generate();
        let records = Records::new(MemoryStore::new(), Sealer::new(std::slice::from_ref(&key)));
        for user in ["alex", "megan"] {
            records.put_connection(&full(ConnectionKey::new("g", user, "default"), "CANARY"), Expect::Absent).await.expect("written");
        }
        let key_of = ConnectionKey::new("g", "megan", "default");
        records.begin_intent(&Intent { key: key_of, begun_at: UnixMillis(1), version: 1 }).await.expect("written");
        let session = SessionWrite { key: b"s", expect: Expect::Absent, value: Some(b"CANARY") };
        records.put_session(session).await.expect("written");
        (key, records)
    }

    #[tokio::test]
    async fn a_backup_holds_sealed_records_and_says_what_opens_them() {
        let (key, records) = records().await;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("backup");
        let written = write(&records, &path, UnixMillis(0), false).await.expect("written");
        assert_eq!((written.describe(), written.total()), ("1 intents, 2 connections".to_owned(), 3), "and no session");
        assert_eq!(written.keys, BTreeMap::from([(key.id().to_string(), 3)]));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).expect("read");
        assert!(!text.contains("CANARY"));
        let mut backup = Backup::open(&path).expect("whole");
        assert_eq!(backup.summary, written);
        let mut seen = Vec::new();
        backup
            .each(|saved| {
                seen.push(saved.kind);
                Ok(())
            })
            .expect("read");
        assert_eq!(seen, [Kind::Intent, Kind::Connection, Kind::Connection]);
        assert!(matches!(write(&records, &path, UnixMillis(0), false).await, Err(BackupError::Io(_))), "never over another");
        write(&records, &path, UnixMillis(0), true).await.expect("replaced");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing temporary is left");
    }

    #[tokio::test]
    async fn a_cut_or_changed_file_is_refused_at_every_byte() {
        let (_, records) = records().await;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("backup");
        write(&records, &path, UnixMillis(0), false).await.expect("written");
        let bytes = fs::read(&path).expect("read");
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
        for at in 0..bytes.len() - 1 {
            fs::write(&path, &bytes[..at]).expect("written");
            assert!(Backup::open(&path).is_err(), "cut at {at}");
        }
        for at in (0..last).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("written");
            assert!(Backup::open(&path).is_err(), "changed at {at}");
        }
        fs::write(&path, [&bytes[..], b"{}\n"].concat()).expect("written");
        assert!(matches!(Backup::open(&path), Err(BackupError::Checksum)), "more behind its end");
        // A record taken out, which leaves every line whole.
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        fs::write(&path, [&lines[..1], &lines[2..]].concat().concat()).expect("written");
        assert!(matches!(Backup::open(&path), Err(BackupError::Checksum)));
        fs::write(&path, b"{\"attache_backup\":2}\n").expect("written");
        assert!(matches!(Backup::open(&path), Err(BackupError::Newer(2))));
        fs::write(&path, b"something else\n").expect("written");
        assert!(matches!(Backup::open(&path), Err(BackupError::Foreign)));
    }
}
