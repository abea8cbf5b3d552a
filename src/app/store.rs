//! Opening stores by what names them, and the work on a store that no server has open: check, repair, restore, and the far end of a copy.

use super::AppError;
use crate::base::clock::UnixMillis;
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::config::{self, KeySource, SharedStore, Startup, StoreKind};
use crate::store::backup::{Backup, BackupError, Saved, Summary};
use crate::store::keyfile::KeyFileError;
use crate::store::memory::MemoryStore;
use crate::store::postgres::{PostgresOptions, PostgresStore, PostgresUrl};
use crate::store::redis::{RedisStore, RedisUrl};
use crate::store::seal::Sealer;
use crate::store::sled::{SledStore, repair};
use crate::store::survey::{Fault, Flaw, Survey, examine, name_of};
use crate::store::{Expect, Kind, Records, Store, StoreError, Write};
use crate::upstream::TlsRoots;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many records go into one write of a store that is being filled.
const BATCH: usize = 256;

/// A store and its keys.
#[derive(Debug, Clone)]
pub struct Spec {
    pub kind: StoreKind,
    pub keys: KeySource,
}

/// Whether anything was ever written into the store.
pub(super) fn exists(kind: &StoreKind) -> bool {
    match kind {
        StoreKind::Memory => false,
        StoreKind::Sled { path } => SledStore::exists(path),
        // A key of its own for each replica would be none for the others: it is never made here.
        StoreKind::Postgres { .. } | StoreKind::Redis { .. } => true,
    }
}

/// Opens the store, making it if there is nothing.
pub(super) async fn open(kind: &StoreKind) -> Result<Arc<dyn Store>, AppError> {
    Ok(match kind {
        StoreKind::Memory => MemoryStore::new(),
        StoreKind::Sled { path } => {
            let path = path.clone();
            blocking(move || SledStore::open(&path)).await??
        }
        StoreKind::Postgres { url, shared } => {
            let roots = match &url.root_cert {
                None => TlsRoots::system(),
                Some(path) => TlsRoots::of_file(path).map_err(|why| AppError::Other(format!("{}: {why}", path.display())))?,
            };
            PostgresStore::open(url, PostgresOptions { tls: roots.client_config(&[]), relaxed: shared.relaxed }).await?
        }
        StoreKind::Redis { url, shared } => RedisStore::open(url, shared.relaxed).await?,
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AppError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AppError::Other("work on the store broke off".to_owned()))
}

impl Spec {
    pub fn of(startup: &Startup) -> Spec {
        Spec { kind: startup.store.clone(), keys: startup.keys.clone() }
    }

    /// `sled:PATH` with the keys of `config`, or another config file with its own.
    ///
    /// # Errors
    /// When it is no store, or the config file that is needed has a fault.
    pub fn named(text: &str, config: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Spec, AppError> {
        let load = |file: &Path| config::load(file, environment).map_err(AppError::Config);
        if let Some(path) = text.strip_prefix("sled:") {
            return Ok(Spec { kind: StoreKind::Sled { path: path.into() }, keys: load(config)?.startup.keys.clone() });
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let url = PostgresUrl::parse(&Secret::new(text)).map_err(|fault| AppError::Other(fault.to_string()))?;
            let kind = StoreKind::Postgres { url: Box::new(url), shared: SharedStore::default() };
            return Ok(Spec { kind, keys: load(config)?.startup.keys.clone() });
        }
        if text.starts_with("redis://") || text.starts_with("rediss://") {
            let url = RedisUrl::parse(&Secret::new(text)).map_err(|fault| AppError::Other(fault.to_owned()))?;
            let kind = StoreKind::Redis { url: Box::new(url), shared: SharedStore::default() };
            return Ok(Spec { kind, keys: load(config)?.startup.keys.clone() });
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let scheme = scheme.escape_debug();
            return Err(AppError::Other(format!(
                "`{scheme}:` is no kind of store that this version has: name a config file or `sled:PATH`"
            )));
        }
        Ok(Spec::of(&load(Path::new(text))?.startup))
    }

    /// What opens the records. A key is never made here.
    ///
    /// # Errors
    /// When a key is missing or is none.
    pub fn sealer(&self) -> Result<Sealer, AppError> {
        super::sealer(&self.keys, true)
    }

    /// The same; for a store on this machine's disk in which there is nothing yet, the key file is made.
    ///
    /// # Errors
    /// When a key is missing or is none.
    pub(super) fn sealer_or_make(&self) -> Result<Sealer, AppError> {
        if let (Some(_), KeySource::File(path)) = (self.kind.shared(), &self.keys)
            && !path.exists()
        {
            return Err(AppError::Other(format!(
                "the encryption key file {} does not exist, and for a store that replicas share none is made, for each would have its own: make one key with \
                 `attache keygen` and give it to every replica, as `store.encryption_keys` or in that file",
                path.display()
            )));
        }
        super::sealer(&self.keys, exists(&self.kind))
    }

    /// Opens a store in which there is something.
    ///
    /// # Errors
    /// When there is none, or it refuses.
    pub async fn open_existing(&self) -> Result<Records, AppError> {
        self.need()?;
        let sealer = self.sealer()?;
        Ok(Records::new(open(&self.kind).await?, sealer))
    }

    /// Opens a store, or makes it, and its key file with it.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn open_or_make(&self) -> Result<Records, AppError> {
        if self.kind == StoreKind::Memory {
            return Err(AppError::Other("the store is `memory`, which ends with its process".to_owned()));
        }
        let sealer = self.sealer_or_make()?;
        Ok(Records::new(open(&self.kind).await?, sealer))
    }

    fn need(&self) -> Result<(), AppError> {
        match &self.kind {
            StoreKind::Memory => Err(AppError::Other("the store is `memory`, which lives inside the running server alone".to_owned())),
            StoreKind::Sled { path } if !path.exists() => Err(AppError::Other(format!("there is no store in {}", path.display()))),
            StoreKind::Sled { .. } | StoreKind::Postgres { .. } | StoreKind::Redis { .. } => Ok(()),
        }
    }

    fn folder(&self, verb: &str) -> Result<PathBuf, AppError> {
        match &self.kind {
            StoreKind::Sled { path } => Ok(path.clone()),
            StoreKind::Memory | StoreKind::Postgres { .. } | StoreKind::Redis { .. } => {
                Err(AppError::Other(format!("`store {verb}` is for a store on this machine's disk (`store.sled`)")))
            }
        }
    }
}

/// Looks at the whole store without changing it: a sled store is copied first, because sled changes files as it opens them.
///
/// # Errors
/// What a start would refuse it for.
pub async fn check(spec: &Spec) -> Result<Survey, AppError> {
    spec.need()?;
    let sealer = spec.sealer()?;
    let StoreKind::Sled { path } = &spec.kind else {
        let records = Records::new(open(&spec.kind).await?, sealer);
        let survey = records.survey().await;
        records.close().await?;
        return Ok(survey?);
    };
    let path = path.clone();
    let (store, _held, _kept) = blocking(move || {
        let held = repair::hold(&path)?;
        let work = work_folder(&path)?;
        let copy = work.path().join("store");
        repair::copy_folder(&path, &copy)
            .map_err(|error| AppError::Other(format!("{} cannot be copied to look at it: {error}", path.display())))?;
        Ok::<_, AppError>((repair::look(&copy, &path)?, held, work))
    })
    .await??;
    let records = Records::new(store, sealer);
    let survey = records.survey().await;
    records.close().await?;
    Ok(survey?)
}

/// A folder of our own beside the store: the same disk, and the same people who may read it.
fn work_folder(path: &Path) -> Result<tempfile::TempDir, AppError> {
    let folder = parent(path);
    let made = tempfile::Builder::new().prefix(".attache-work").tempdir_in(folder);
    made.map_err(|error| AppError::Other(format!("{}: no folder can be made to work in: {error}", folder.display())))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `attache.db` and a time give `attache.db.aside-20260102T030405Z`.
fn aside(path: &Path, now: UnixMillis) -> PathBuf {
    let time: String = now.to_rfc3339().chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".aside-{time}"));
    path.with_file_name(name)
}

/// What a repair found, and what it did.
#[derive(Debug)]
pub struct Repaired {
    /// Why the store refuses to start; `None` where it starts, but records in it do not open.
    pub refusal: Option<String>,
    /// What it must have held, where that is known, and the number of its last write.
    pub expected: Option<(BTreeMap<Kind, u64>, u64)>,
    pub found_write: Option<u64>,
    pub kept: BTreeMap<Kind, u64>,
    /// Records that are there and do not open.
    pub dropped: Vec<Fault>,
    pub broken_off: Vec<Kind>,
    /// Connections of the backup that was compared with, which are not among those that are kept: lost, or deleted since.
    pub missing: Option<Vec<String>>,
    /// Whether the records that are kept are all that there must be, in their newest form.
    pub is_exact: bool,
    /// Where the old folder is now; `None` if nothing was changed.
    pub aside: Option<PathBuf>,
}

/// How a repair is to be done.
#[derive(Debug, Clone, Default)]
pub struct RepairPlan {
    /// Else only look.
    pub write: bool,
    /// Leave out what a missing key or a newer version would open.
    pub drop_unopened: bool,
    /// A backup whose connections are looked for among what was salvaged.
    pub compare: Option<PathBuf>,
}

/// Makes a whole store of what can be read of a damaged one. `None`: it is whole already.
///
/// # Errors
/// When nothing can be read, when a missing key or a newer attache would open what does not, or when the disk refuses.
pub async fn repair(spec: &Spec, plan: RepairPlan, now: UnixMillis) -> Result<Option<Repaired>, AppError> {
    spec.need()?;
    let path = spec.folder("repair")?;
    let sealer = spec.sealer()?;
    let held = blocking({
        let path = path.clone();
        move || repair::hold(&path)
    })
    .await??;
    let work = work_folder(&path)?;
    let copy = |name: &str| {
        let to = work.path().join(name);
        let copied = repair::copy_folder(&path, &to);
        copied.map(|()| to).map_err(|error| AppError::Other(format!("{} cannot be copied: {error}", path.display())))
    };
    let (first, second) = (copy("look")?, copy("salvage")?);
    let refusal = match blocking({
        let path = path.clone();
        move || repair::look(&first, &path)
    })
    .await?
    {
        Ok(store) => {
            let records = Records::new(store, sealer.clone());
            let survey = records.survey().await;
            records.close().await?;
            if survey.is_ok_and(|survey| survey.is_whole()) {
                return Ok(None);
            }
            None
        }
        Err(StoreError::Damaged(why)) => Some(why),
        Err(error) => return Err(error.into()),
    };
    let salvaged = blocking(move || repair::salvage(&second)).await?.map_err(|error| {
        let refusal = refusal.as_deref().unwrap_or_default();
        AppError::Other(format!("there is nothing to repair the store from, and it is left as it is ({error}). {refusal}"))
    })?;
    let mut done = Repaired {
        refusal,
        expected: salvaged.expected,
        found_write: salvaged.found_write,
        kept: BTreeMap::new(),
        dropped: Vec::new(),
        broken_off: salvaged.broken_off,
        missing: None,
        is_exact: salvaged.is_exact,
        aside: None,
    };
    let mut writes = Vec::new();
    for (kind, key, stored) in salvaged.records {
        match examine(&sealer, kind, &key, &stored.value) {
            Ok(_) => {
                *done.kept.entry(kind).or_default() += 1;
                writes.push(Write { kind, key, expect: Expect::Absent, value: Some(stored.value) });
            }
            Err(fault) => done.dropped.push(*fault),
        }
    }
    done.is_exact &= done.dropped.is_empty();
    if let Some(file) = plan.compare.clone() {
        let kept: HashSet<Vec<u8>> = writes.iter().filter(|write| write.kind == Kind::Connection).map(|write| write.key.clone()).collect();
        done.missing = Some(blocking(move || missing(&file, &kept)).await??);
    }
    let curable = |fault: &&Fault| fault.flaw != Flaw::Broken;
    if let Some(fault) = done.dropped.iter().find(curable).filter(|_| !plan.drop_unopened) {
        let count = done.dropped.iter().filter(curable).count();
        let (record, why) = (&fault.record, &fault.why);
        return Err(AppError::Other(format!(
            "{count} records are not damaged, and only cannot be opened here ({record}: {why}). Mend that first, or leave them out with --drop-unopened"
        )));
    }
    let must_hold = done.expected.as_ref().is_none_or(|(counts, write)| *write > 0 || counts.values().any(|count| *count > 0));
    if writes.is_empty() && must_hold {
        return Err(AppError::Other("no record of the store opens: there is nothing to repair it from, and it is left as it is. Restore a backup with `attache store restore FILE --force`".to_owned()));
    }
    if plan.write {
        done.aside = replace(&path, writes, now).await?;
    }
    drop(held);
    Ok(Some(done))
}

/// The connections of a backup that are not among these.
fn missing(file: &Path, kept: &HashSet<Vec<u8>>) -> Result<Vec<String>, AppError> {
    let mut missing = Vec::new();
    let read = Backup::open(file).and_then(|mut backup| {
        backup.each(|saved| {
            if saved.kind == Kind::Connection && !kept.contains(&saved.key) {
                missing.push(name_of(saved.kind, &saved.key));
            }
            Ok(())
        })
    });
    read.map(|()| missing).map_err(|error| AppError::Other(format!("{}: {error}", file.display())))
}

/// Makes a new store of these records beside `path`, and puts it in its place.
async fn replace(path: &Path, writes: Vec<Write>, now: UnixMillis) -> Result<Option<PathBuf>, AppError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".new-{}", &random_token()[..8]));
    let new = path.with_file_name(name);
    let store = open(&StoreKind::Sled { path: new.clone() }).await?;
    let filled = fill(&*store, writes).await;
    let closed = store.close().await;
    if let Err(error) = filled.and(closed) {
        // It is ours alone and of no use.
        let _ = std::fs::remove_dir_all(&new);
        return Err(error.into());
    }
    let (path, aside) = (path.to_owned(), aside(path, now));
    Ok(blocking(move || repair::put_in_place(&new, &path, &aside)).await??)
}

async fn fill(store: &dyn Store, mut writes: Vec<Write>) -> Result<(), StoreError> {
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(BATCH));
        store.write(std::mem::replace(&mut writes, rest)).await?;
    }
    Ok(())
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    pub summary: Summary,
    /// Where the store's old folder is now, if there was one.
    pub aside: Option<PathBuf>,
}

/// Puts a backup's records into the store: into one that is absent or empty, or, with `force`, in the place of one that is moved aside.
///
/// # Errors
/// When the backup is not whole or needs a key that is not here, the store holds something, or the disk refuses. Then nothing was changed.
pub async fn restore(spec: &Spec, file: &Path, force: bool, now: UnixMillis) -> Result<Restored, AppError> {
    let sealer = spec.sealer().map_err(|error| match error {
        AppError::Key(KeyFileError::MissingBesideStore { path }) => AppError::Other(format!(
            "the encryption key file {} does not exist: put the key there first that the backup's records were sealed with",
            path.display()
        )),
        other => other,
    })?;
    let told = |error: BackupError| AppError::Other(format!("{}: {error}", file.display()));
    let file_owned = file.to_owned();
    let mut backup = blocking(move || Backup::open(&file_owned)).await?.map_err(told)?;
    let mut writes = Vec::new();
    let mut fault = None;
    let read = backup.each(|Saved { kind, key, value }| {
        if let Err(found) = examine(&sealer, kind, &key, &value) {
            fault.get_or_insert(*found);
        }
        writes.push(Write { kind, key, expect: Expect::Absent, value: Some(value) });
        Ok(())
    });
    read.map_err(told)?;
    if let Some(Fault { kind, record, why, .. }) = fault {
        return Err(AppError::Other(format!("{}: {record} ({}): {why}. Nothing was changed", file.display(), kind.name())));
    }
    let summary = backup.summary;
    let StoreKind::Sled { path } = &spec.kind else {
        let records = spec.open_or_make().await?;
        let filled = match records.is_empty().await {
            Ok(true) => fill_records(&records, writes).await,
            Ok(false) => Err(AppError::Other("the store holds records already: empty it first".to_owned())),
            Err(error) => Err(error.into()),
        };
        records.close().await?;
        return filled.map(|()| Restored { summary, aside: None });
    };
    let held = match path.exists() {
        true => Some(
            blocking({
                let path = path.clone();
                move || repair::hold(&path)
            })
            .await??,
        ),
        false => None,
    };
    if SledStore::exists(path) && !force {
        return Err(AppError::Other(format!(
            "the store {} was written to already: --force moves it aside and puts the backup in its place",
            path.display()
        )));
    }
    let aside = replace(path, writes, now).await?;
    drop(held);
    Ok(Restored { summary, aside })
}

async fn fill_records(records: &Records, mut writes: Vec<Write>) -> Result<(), AppError> {
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(BATCH));
        records.write_sealed(std::mem::replace(&mut writes, rest)).await?;
    }
    Ok(())
}
