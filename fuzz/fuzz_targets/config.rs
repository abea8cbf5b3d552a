//! No text makes the config's readers panic, none in which they see two trees is taken, and every fault is told at a place that the text has.

#![no_main]

use attache::config::{load_str, yaml};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let env = |name: &str| (name == "SET").then(|| "value".into());
    let folder = Path::new("/nonexistent");
    match load_str(text, Path::new("routes.yaml"), folder, &env) {
        Ok(snapshot) => {
            assert!(yaml::same_tree(text), "taken, though two parsers see two trees in it");
            // What loads is told without a panic too.
            let _ = format!("{snapshot:?}");
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a word");
            // What YAML takes for the end of a line (1.1 has the last three).
            let lines = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
            for error in &errors.0 {
                assert!(error.line <= lines + 1, "line {} of {lines}: {error}", error.line);
            }
        }
    }
});
