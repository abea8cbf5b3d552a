//! Each name of an error that the program can answer with is explained.

use crate::root;
use std::collections::BTreeSet;
use std::path::Path;

/// The names in a source file: `"no-route", StatusCode::…`.
fn names(text: &str, found: &mut BTreeSet<String>) {
    for part in text.split(", StatusCode::") {
        let Some(quoted) = part.strip_suffix('"') else { continue };
        let name = quoted.rsplit('"').next().unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
            found.insert(name.to_owned());
        }
    }
}

fn walk(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            // The sandbox is a provider: its errors are not Attaché's.
            if !path.ends_with("sandbox") && !path.ends_with("tests") {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names(&std::fs::read_to_string(&path).expect("a source"), found);
        }
    }
}

#[test]
fn every_error_has_a_cause_and_a_mend() {
    let mut found = BTreeSet::new();
    walk(&root().join("src"), &mut found);
    assert!(found.len() > 20 && found.contains("not-connected") && found.contains("circuit-open"), "{found:?}");
    let page = std::fs::read_to_string(root().join("docs/errors.md")).expect("docs/errors.md");
    let missing: Vec<_> = found.iter().filter(|name| !page.contains(&format!("**`{name}`**"))).collect();
    assert!(missing.is_empty(), "docs/errors.md says nothing of {missing:?}");
    let index = page.split("## ").next().expect("the part before the first section");
    let missing: Vec<_> = found.iter().filter(|name| !index.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "the index of docs/errors.md lacks {missing:?}");
}
