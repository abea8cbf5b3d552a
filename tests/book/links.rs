//! Every relative link and anchor leads to something, and every page has its place in the book.

use crate::pages::{self, Page};
use crate::root;
use std::path::{Component, Path, PathBuf};

/// The targets of a page's links and images, each with its line.
fn targets(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in page.prose() {
        for rest in pages::without_code(line).split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            found.push((at, target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// `a/b/../c` as `a/c`; `None` where it leads out of the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Some(plain)
}

#[test]
fn every_link_leads_to_something() {
    let all = pages::all();
    let mut dead = Vec::new();
    let mut followed = 0;
    for page in &all {
        for (line, target) in targets(page) {
            if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let here = page.name.parent().unwrap_or(Path::new(""));
            let named = if path.is_empty() { Some(page.name.clone()) } else { plain(&here.join(path)) };
            let Some(named) = named.filter(|named| root().join(named).exists()) else {
                dead.push(format!("{}:{line}: {target}: there is no such file", page.name.display()));
                continue;
            };
            let Some(anchor) = anchor else { continue };
            let known = all.iter().find(|page| page.name == named).is_some_and(|page| page.anchors().iter().any(|known| known == anchor));
            if !known {
                dead.push(format!("{}:{line}: {target}: there is no such heading", page.name.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    assert!(followed > 300, "{followed} links only: is this still a list of links?");
}

#[test]
fn every_page_stands_in_the_book_once() {
    let summary = pages::all().into_iter().find(|page| page.name == Path::new("docs/SUMMARY.md")).expect("docs/SUMMARY.md");
    let mut named: Vec<_> = targets(&summary).into_iter().map(|(_, target)| Path::new("docs").join(target)).collect();
    named.sort();
    let there: Vec<_> =
        pages::all().into_iter().map(|page| page.name).filter(|name| name.starts_with("docs") && *name != summary.name).collect();
    assert_eq!(named, there, "left: what docs/SUMMARY.md names; right: what is there");
}
