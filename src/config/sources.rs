//! Where a config comes from: the environment and the files, each file's content remembered as a fingerprint, so that the watch knows what
//! to look at and whether anything truly changed.

use super::yaml;
use crate::base::digest::sha256;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The environment, as a closure so that tests give their own.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Something whose change makes a new config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watched {
    File(PathBuf),
    /// The names of the `.yaml` files in a folder.
    Folder(PathBuf),
}

/// What each watched thing held when it was read. Files that could not be read count too: their coming is a change.
pub(crate) type Prints = BTreeMap<Watched, [u8; 32]>;

pub(crate) struct Sources<'e> {
    env: Env<'e>,
    /// The folder of the config file: what relative paths are relative to.
    folder: PathBuf,
    prints: RefCell<Prints>,
    /// What variables and secret files held, so that no error shows it.
    filled: RefCell<Vec<String>>,
}

impl<'e> Sources<'e> {
    pub(crate) fn new(env: Env<'e>, folder: &Path) -> Self {
        Sources { env, folder: folder.to_path_buf(), prints: RefCell::default(), filled: RefCell::default() }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// Defined variables among `names` and the process's own, for suggestions.
    pub(crate) fn variables_among<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
        let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        names.into_iter().map(str::to_owned).chain(own).filter(|name| (self.env)(name).is_some()).collect()
    }

    pub(crate) fn path(&self, written: &str) -> PathBuf {
        // Without the `.` parts, which only make paths in messages longer.
        self.folder.join(written).components().filter(|part| *part != std::path::Component::CurDir).collect()
    }

    /// The text of a file of at most [`yaml::BYTES_MAX`] bytes and one more, so that a longer one is seen to be too long.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read_bytes(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8 text"))
    }

    /// The same of a file that need not be text.
    pub(crate) fn read_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = read_bytes(path);
        self.prints.borrow_mut().insert(Watched::File(path.to_path_buf()), print_of(&bytes));
        bytes
    }

    /// The `.yaml` and `.yml` files of a folder in the order of their names; none where there is no such folder.
    pub(crate) fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let names = list_yaml(folder);
        self.prints.borrow_mut().insert(Watched::Folder(folder.to_path_buf()), print_of_names(&names));
        names
    }

    pub(crate) fn remember_filled(&self, value: &str) {
        self.filled.borrow_mut().push(value.to_owned());
    }

    pub(crate) fn filled(&self) -> Vec<String> {
        self.filled.borrow().clone()
    }

    pub(crate) fn into_prints(self) -> Prints {
        self.prints.into_inner()
    }
}

/// What the same things hold now.
pub(crate) fn prints_now(prints: &Prints) -> Prints {
    let now = |watched: &Watched| match watched {
        Watched::File(path) => print_of(&read_bytes(path)),
        Watched::Folder(folder) => print_of_names(&list_yaml(folder)),
    };
    prints.keys().map(|watched| (watched.clone(), now(watched))).collect()
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    let mut bytes = Vec::new();
    // A limit, because the path may name a device.
    file.take(yaml::BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn list_yaml(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml"))
        // `.data`-like names of editors and Kubernetes are no definitions.
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.')))
        .collect();
    paths.sort();
    paths
}

fn print_of(bytes: &io::Result<Vec<u8>>) -> [u8; 32] {
    match bytes {
        Ok(bytes) => sha256(bytes),
        Err(error) => sha256(format!("unreadable: {:?}", error.kind()).as_bytes()),
    }
}

fn print_of_names(names: &[PathBuf]) -> [u8; 32] {
    sha256(names.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join("\n").as_bytes())
}
