//! `tests/conformance/README.md` says which test holds which rule; this holds that it says so of all of them, and of tests that are there.

use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../../conformance/README.md");

/// The cells of a row: its number, what it is about, and what holds it.
fn rows(letter: char) -> Vec<(String, String)> {
    let cells = TABLE.lines().filter_map(|line| line.strip_prefix("| ")).map(|line| line.split(" | ").collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0].starts_with(letter) && cells[0][1..].parse::<u32>().is_ok());
    rows.map(|cells| (cells[0].to_owned(), cells[cells.len() - 1].trim_end_matches(" |").to_owned())).collect()
}

#[test]
fn every_rule_and_every_deviation_has_its_row() {
    for (letter, count) in [('P', 74), ('Q', 72)] {
        let numbers: Vec<String> = rows(letter).into_iter().map(|(number, _)| number).collect();
        let expected: Vec<String> = (1..=count).map(|number| format!("{letter}{number:02}")).collect();
        assert_eq!(numbers, expected);
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (number, held_by) in rows('P').into_iter().chain(rows('Q')) {
        let named: Vec<&str> = held_by.split('`').filter(|text| text.contains("::")).collect();
        assert!(held_by.starts_with("not applicable: ") || !named.is_empty(), "{number}: {held_by}");
        for name in named {
            let (file, test) = name.split_once("::").expect("a path and a name");
            let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{number}: {file}: {error}"));
            let at = text.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("{number}: {file} has no `{test}`"));
            let before: Vec<&str> = text[..at].lines().rev().take(6).collect();
            let is_test = before.iter().any(|line| ["#[test]", "#[tokio::test"].iter().any(|attribute| line.trim().starts_with(attribute)));
            assert!(is_test, "{number}: `{test}` of {file} is no test");
        }
    }
}

/// A quirk without a test of its name would be a row that says something else; OAuth 1.0a's two are named by the rules of RFC 5849 instead.
#[test]
fn each_deviation_is_held_by_a_test_of_its_number() {
    let by_rule = |number: &str| ["Q69", "Q70"].contains(&number);
    for (number, held_by) in rows('Q').into_iter().filter(|(number, _)| !by_rule(number)) {
        let name = format!("{}_", number.to_lowercase());
        assert!(held_by.contains(&name), "{number}: {held_by}");
    }
}
