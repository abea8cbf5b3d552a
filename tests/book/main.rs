//! The documentation holds together: what is made of the code is as the code says, links lead somewhere, and examples are taken.
//!
//! `ATTACHE_WRITE_DOCS=1 cargo test --test book` writes the pages that are made of the schema and of the provider definitions.

mod blocks;
mod catalogue;
mod errors;
mod keys;
mod links;
mod pages;

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a committed page with what it is made of, or writes it where that is asked for.
fn holds(page: &str, made: &str) {
    let file = root().join(page);
    if std::env::var_os("ATTACHE_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, made).expect("written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == made, "{page} is not what it is made of: run ATTACHE_WRITE_DOCS=1 cargo test --test book");
}
