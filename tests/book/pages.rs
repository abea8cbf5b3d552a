//! Reads the pages: their prose without code, their fenced blocks, their headings.

use crate::root;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) struct Page {
    /// From the repository's root.
    pub(crate) name: PathBuf,
    pub(crate) text: String,
}

pub(crate) struct Block<'a> {
    /// The first word behind the fence: `sh`, `yaml` …
    pub(crate) language: &'a str,
    /// Its lines, less the indentation of the fence.
    pub(crate) text: String,
    /// The number of its first line.
    pub(crate) line: usize,
}

/// Every page of the documentation and the READMEs.
pub(crate) fn all() -> Vec<Page> {
    let mut found = Vec::new();
    for name in ["README.md", "CHANGELOG.md"] {
        found.push(PathBuf::from(name));
    }
    for folder in ["docs", "examples"] {
        walk(Path::new(folder), &mut found);
    }
    found.sort();
    found.into_iter().map(|name| Page { text: std::fs::read_to_string(root().join(&name)).expect("a page"), name }).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = folder.join(entry.file_name());
        let hidden =
            entry.file_name().to_string_lossy().starts_with('.') || entry.file_name() == "node_modules" || entry.file_name() == "book";
        if entry.file_type().expect("a kind").is_dir() {
            if !hidden {
                walk(&name, found);
            }
        } else if name.extension().is_some_and(|extension| extension == "md") {
            found.push(name);
        }
    }
}

impl Page {
    /// Its fenced blocks, also those within lists.
    pub(crate) fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<(usize, Block<'_>)> = None;
        for (at, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    let language = info.split_whitespace().next().unwrap_or_default();
                    open = Some((indent, Block { language, text: String::new(), line: at + 2 }));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
                (Some((fence, block)), None) => {
                    block.text.push_str(line.get((*fence).min(indent)..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.name.display());
        blocks
    }

    /// Its lines outside fenced blocks, each with its number.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            (!inside && !fence).then_some((at + 1, line))
        })
    }

    /// What a `#fragment` may name, by the rules of GitHub and of mdBook alike.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let headings = self.prose().filter_map(|(_, line)| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim()));
        headings
            .map(|heading| {
                let slug = slug(heading);
                let count = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_insert(0);
                if *count == 0 { slug } else { format!("{slug}-{count}") }
            })
            .collect()
    }
}

pub(crate) fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).flat_map(char::to_lowercase).collect()
}

/// A line without what stands in backticks; the rest keeps its place.
pub(crate) fn without_code(line: &str) -> String {
    let mut inside = false;
    line.chars()
        .map(|letter| {
            inside ^= letter == '`';
            if inside { ' ' } else { letter }
        })
        .collect()
}

/// What stands in backticks on a line.
pub(crate) fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}
