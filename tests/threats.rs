//! Holds the list of attacks against the tests: each row that concerns calls and callers has a test named by it (`threat_NN_…`), whose comment
//! says which defence, taken out, makes it fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the threat list that are about the proxy, its clients, its upstreams, its store, and the grants that it keeps.
const ROWS: [u32; 37] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 25, 26, 28, 29, 30, 32, 33, 34, 35, 37, 38, 39, 41, 42, 44,
    45,
];

/// How a comment says it.
const SAYING: [&str; 4] = ["Fails", "Taken out", "Without", "without"];

#[test]
fn every_row_has_tests_and_each_says_what_it_holds() {
    let mut found: BTreeMap<u32, usize> = BTreeMap::new();
    let mut mute = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("a source file");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(name) = line.split("fn threat_").nth(1).and_then(|rest| rest.split('(').next()) else { continue };
            let Some(row) = name.split('_').next().and_then(|row| row.parse().ok()).filter(|row| ROWS.contains(row)) else { continue };
            *found.entry(row).or_default() += 1;
            let before = lines[..index].iter().rev();
            let comment =
                before.take_while(|line| line.trim_start().starts_with(['/', '#'])).filter(|line| line.trim_start().starts_with("///"));
            if !comment.into_iter().any(|line| SAYING.iter().any(|word| line.contains(word))) {
                mute.push(format!("{}: threat_{name}", file.display()));
            }
        }
    }
    let missing: Vec<u32> = ROWS.into_iter().filter(|row| !found.contains_key(row)).collect();
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
    assert!(mute.is_empty(), "tests that do not say which defence they hold:\n{}", mute.join("\n"));
}

/// `docs/grants.md` promises nothing that no test holds.
#[test]
fn every_promise_about_grants_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/grants.md")).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Promise"));
    for row in rows {
        let named: Vec<&str> = row.split('`').filter(|text| text.contains(".rs::") || text.ends_with(".py")).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for name in named {
            // A suite of its own that drives the binary is named as a whole.
            let Some((file, test)) = name.split_once("::") else {
                assert!(root.join(name).is_file(), "no such suite: {name}");
                continue;
            };
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(text.contains(&format!("fn {test}(")), "no such test: {name}");
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests/it")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
