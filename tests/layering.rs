//! The walls of the house: imports go to lower floors only, serde derives stand in their rooms, and each file says its job.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and its floor; see docs/ARCHITECTURE.md.
const FLOORS: [(&str, u32); 21] = [
    ("base", 0),
    ("route", 1),
    ("attach", 1),
    ("identity", 1),
    ("limit", 1),
    ("log", 1),
    ("metrics", 1),
    ("store", 1),
    ("upstream", 1),
    ("notices", 2),
    ("provider", 2),
    ("config", 3),
    ("oauth", 3),
    ("token", 4),
    ("proxy", 5),
    ("connect", 5),
    ("server", 6),
    ("sandbox", 6),
    ("app", 7),
    ("cli", 8),
    ("main", 9),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| (path.strip_prefix(&src).expect("below src").to_owned(), fs::read_to_string(&path).expect("readable")))
        .collect()
}

fn room(path: &Path) -> String {
    let first = path.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// The part of a file that ships: tests may reach anywhere.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

#[test]
fn imports_go_to_lower_floors_only() {
    let mut breaches = Vec::new();
    for (path, text) in all() {
        let own = room(&path);
        if own == "lib" || path.ends_with("tests.rs") || path.ends_with("contract.rs") {
            continue;
        }
        let own_floor =
            floor(&own).unwrap_or_else(|| panic!("{}: give the room `{own}` a floor in this test and in ARCHITECTURE.md", path.display()));
        for (number, line) in shipped(&text).lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                if let Some(other) = floor(&name)
                    && name != own
                    && other >= own_floor
                {
                    breaches.push(format!("{}:{}: `{own}` (floor {own_floor}) uses `{name}` (floor {other})", path.display(), number + 1));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "imports must go to lower floors only:\n{}", breaches.join("\n"));
}

#[test]
fn the_sandbox_stands_alone() {
    for (path, text) in all().into_iter().filter(|(path, _)| room(path) == "sandbox") {
        let foreign = shipped(&text)
            .lines()
            .find(|line| line.contains("crate::") && !line.contains("crate::base") && !line.contains("crate::sandbox"));
        assert!(foreign.is_none(), "{}: {foreign:?}", path.display());
    }
}

#[test]
fn serde_derives_stand_in_their_rooms() {
    for (path, text) in all() {
        let name = path.file_stem().expect("named").to_string_lossy().into_owned();
        let derives = text.lines().any(|line| line.contains("derive(") && (line.contains("Serialize") || line.contains("Deserialize")));
        assert!(
            !derives || ["raw", "wire", "codec"].contains(&name.as_str()),
            "{}: serde derives stand in raw.rs, wire.rs or codec.rs",
            path.display()
        );
    }
}

#[test]
fn every_file_opens_with_its_job() {
    for (path, text) in all() {
        assert!(text.starts_with("//! "), "{}: the first line says the file's one job", path.display());
    }
}

#[test]
fn every_room_is_on_the_map() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    for (path, _) in all() {
        let room = room(&path);
        assert!(
            room == "lib" || map.contains(&format!("`{room}")) || map.contains(&format!("{room}.rs")),
            "`{room}` is missing in docs/ARCHITECTURE.md"
        );
    }
}
