//! The one place that knows the YAML libraries: text in, a tree of values with their places out.
//!
//! What a scalar means (text, number, truth value, nothing) is `serde_yaml`'s word; where everything stands comes from an event parser with
//! marks. Both walk the same text, and a text in which they do not see the same tree is refused rather than guessed at. Refused as well:
//! duplicate keys, several documents, tags, merge keys, recursive or exploding aliases, and files over 1 MiB.

mod events;
mod hints;

use super::error::{At, ConfigError};
use super::node::{Key, Kind, Node, Value};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// The longest file taken.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Reads one document.
///
/// # Errors
/// One for a text that is no YAML, or one for each duplicate key.
pub(crate) fn parse(text: &str, file: &Arc<Path>) -> Result<Node, Vec<ConfigError>> {
    let start = At::start_of(file);
    if text.len() > BYTES_MAX {
        return Err(vec![ConfigError::at(&start, format!("the file is longer than {} KiB", BYTES_MAX / 1024), None)]);
    }
    let text = &*plain(text);
    let mut node = events::read(text, file)?;
    let values: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| vec![hints::of_values(&error, text, &start)])?;
    agree(&mut node, &values).map_err(|at| {
        vec![ConfigError::at(&at, "this can be read in two ways", Some("put the value in quotes, or write it over several lines".into()))]
    })?;
    Ok(node)
}

/// Without a byte order mark, and with a line break at its end: the two parsers differ on a block (`|`) that the file's end cuts off.
fn plain(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.ends_with('\n') { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}\n")) }
}

/// Whether both parsers see the same tree in `text`, or at least one of them refuses it. Held by a property test and a fuzz target.
pub fn same_tree(text: &str) -> bool {
    let file: Arc<Path> = Path::new("fuzz.yaml").into();
    if text.len() > BYTES_MAX {
        return true;
    }
    let text = &*plain(text);
    let Ok(mut node) = events::read(text, &file) else { return true };
    let Ok(values) = serde_yaml::from_str::<serde_yaml::Value>(text) else { return true };
    agree(&mut node, &values).is_ok()
}

/// A document as JSON, as an editor's schema check sees it.
#[cfg(test)]
pub(crate) fn to_json(text: &str) -> serde_json::Value {
    let value: serde_yaml::Value = serde_yaml::from_str(text).unwrap_or_default();
    serde_json::to_value(value).unwrap_or_default()
}

/// Walks both trees, writes into `node` what each scalar means, and answers the place of the first difference.
fn agree(node: &mut Node, value: &serde_yaml::Value) -> Result<(), At> {
    use serde_yaml::Value as Other;
    let differ = || Err(node.at.clone());
    let meant = match (&mut node.value, value) {
        (Value::Scalar(scalar), Other::String(text)) if scalar.text == *text => {
            scalar.kind = Kind::Text;
            return Ok(());
        }
        (Value::Scalar(scalar), _) if scalar.kind == Kind::Text => return differ(),
        (Value::Scalar(scalar), Other::Null) if matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (Value::Scalar(scalar), Other::Bool(truth)) if scalar.text.eq_ignore_ascii_case(if *truth { "true" } else { "false" }) => {
            scalar.kind = Kind::Bool;
            return Ok(());
        }
        (Value::Scalar(scalar), Other::Number(number)) if means_number(&scalar.text, number) => {
            scalar.kind = Kind::Number;
            return Ok(());
        }
        (Value::Null, Other::Null) => return Ok(()),
        (Value::List(nodes), Other::Sequence(values)) if nodes.len() == values.len() => {
            return nodes.iter_mut().zip(values).try_for_each(|(node, value)| agree(node, value));
        }
        (Value::Map(entries), Other::Mapping(values)) if entries.len() == values.len() => {
            return entries.iter_mut().zip(values).try_for_each(|((key, node), (key_value, value))| {
                agree_key(key, key_value)?;
                agree(node, value)
            });
        }
        _ => return differ(),
    };
    node.value = meant;
    Ok(())
}

/// Keys are compared as the text they were written with, whatever YAML takes them for.
fn agree_key(key: &Key, value: &serde_yaml::Value) -> Result<(), At> {
    use serde_yaml::Value as Other;
    let same = match value {
        Other::String(text) => key.text == *text,
        Other::Number(number) => means_number(&key.text, number),
        Other::Bool(truth) => key.text.eq_ignore_ascii_case(if *truth { "true" } else { "false" }),
        Other::Null => matches!(&*key.text, "" | "~" | "null" | "Null" | "NULL"),
        _ => false,
    };
    if same { Ok(()) } else { Err(key.at.clone()) }
}

/// `serde_yaml` read `text` as `number`: asked of the text alone, it must say the same.
fn means_number(text: &str, number: &serde_yaml::Number) -> bool {
    let alone = serde_yaml::from_str::<serde_yaml::Value>(text).ok();
    // Two NaNs are never equal, yet the same.
    alone.is_some_and(|value| {
        value.as_f64().is_some_and(f64::is_nan) && number.is_nan() || value == serde_yaml::Value::Number(number.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file() -> Arc<Path> {
        Path::new("t.yaml").into()
    }

    /// One line a scalar or key: where it stands and what it is.
    fn outline(node: &Node, out: &mut Vec<String>) {
        let at = format!("{}:{}", node.at.line, node.at.column);
        match &node.value {
            Value::Null => out.push(format!("{at} null")),
            Value::Broken => out.push(format!("{at} broken")),
            Value::Scalar(scalar) => out.push(format!("{at} {:?} {}", scalar.kind, scalar.text)),
            Value::List(nodes) => nodes.iter().for_each(|node| outline(node, out)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    out.push(format!("{}:{} key {}", key.at.line, key.at.column, key.text));
                    outline(node, out);
                }
            }
        }
    }

    #[test]
    fn every_value_knows_its_place_and_kind() {
        let text = "a: 1\nb:\n  - x # note\n  - \"q\\\"r\"\n  - {k: true, l: ~}\nc: >\n  folded\n  text\nd:\n1: 0x1F\n";
        let node = parse(text, &file()).map_err(|errors| format!("{errors:?}")).unwrap_or_else(|e| panic!("{e}"));
        let mut lines = Vec::new();
        outline(&node, &mut lines);
        let expected = [
            "1:1 key a",
            "1:4 Number 1",
            "2:1 key b",
            "3:5 Text x",
            "4:5 Text q\"r",
            "5:6 key k",
            "5:9 Bool true",
            "5:15 key l",
            "5:18 null",
            "6:1 key c",
            "7:3 Text folded text\n",
            "9:1 key d",
            "9:2 null",
            "10:1 key 1",
            "10:4 Number 0x1F",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_place_inside_a_scalar_is_found() {
        let node = parse("a: GET /x\nb: \"GET /é/y\"\nc: \"a\\tb\"\n", &file()).unwrap_or_else(|e| panic!("{e:?}"));
        let Value::Map(entries) = &node.value else { panic!("a mapping") };
        let place = |index: usize, offset| {
            let at = entries[index].1.at_offset(offset);
            (at.line, at.column)
        };
        assert_eq!(place(0, 4), (1, 8));
        assert_eq!(place(1, 8), (2, 12));
        assert_eq!(place(2, 2), (3, 4), "an escape before it: the scalar's own place");
    }

    fn check(text: &str, line: usize, column: usize, message: &str, hint: &str) {
        let errors = match parse(text, &file()) {
            Ok(_) => panic!("taken: {text:?}"),
            Err(errors) => errors,
        };
        let error = &errors[0];
        assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
        assert!(error.message.contains(message), "{text:?}: {error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{text:?}: {error}");
    }

    #[test]
    fn refusals_say_where_and_what_to_do() {
        check("a: 1\nb: 2\na: 3\n", 3, 1, "the key `a` is here twice: first at line 1, column 1", "");
        check("x: {k: 1, k: 2}\n", 1, 11, "the key `k` is here twice", "");
        check("a:\n\tb: 1\n", 2, 1, "tab", "spaces");
        check("a: [\"x\", ${NAME}]\n", 1, 10, "", "quote it: \"${NAME}\"");
        check("a: {client_id: ${NAME:-x}, b: c}\n", 1, 16, "", "quote it: \"${NAME:-x}\"");
        check("a: [\n  b,\n  ${NAME}\n]\n", 3, 3, "", "quote it");
        check("a: b: c\n", 1, 5, "", "quotes");
        check("a: 1\n---\nb: 2\n", 2, 1, "one document", "");
        check("a: !!binary x\n", 1, 4, "tag", "");
        check("a: &x [*x]\n", 1, 8, "inside itself", "");
        check("a: &x {b: 1}\nc:\n  <<: *x\n", 3, 3, "merge key", "");
        check("a: [1, 2\n", 2, 1, "", "");
        check("? [a]\n: b\n", 1, 3, "key", "");
        check("a: 'x\n", 1, 4, "", "closed");
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let one = format!("*a{}, ", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", one.repeat(10)));
        }
        let errors = parse(&text, &file()).map(|_| ()).expect_err("a bomb");
        assert!(errors[0].message.contains("aliases"), "{errors:?}");
        for deep in ["[".repeat(5000), "- ".repeat(5000), "a: {".repeat(3000)] {
            let errors = parse(&deep, &file()).map(|_| ()).expect_err("too deep");
            assert!(errors[0].message.contains("deep") || errors[0].line == 1, "{errors:?}");
        }
        let long = "#".repeat(BYTES_MAX + 1);
        assert!(parse(&long, &file()).map(|_| ()).expect_err("long")[0].message.contains("1024 KiB"));
    }

    #[test]
    fn nothing_at_all_is_nothing() {
        for text in ["", "# a comment\n", "---\n", "~"] {
            let node = parse(text, &file()).unwrap_or_else(|e| panic!("{text:?}: {e:?}"));
            assert!(matches!(node.value, Value::Null), "{text:?}");
        }
    }

    #[test]
    fn a_block_at_the_end_needs_no_line_break_behind_it() {
        for text in ["a: |\n  key", "a: |\n  key\n"] {
            let node = parse(text, &file()).unwrap_or_else(|errors| panic!("{errors:?}"));
            let Value::Map(entries) = &node.value else { panic!("a mapping") };
            assert!(matches!(&entries[0].1.value, Value::Scalar(scalar) if scalar.text == "key\n"));
        }
    }

    #[test]
    fn an_alias_stands_for_its_anchor() {
        let node = parse("a: &x [1, 2]\nb: *x\n", &file()).unwrap_or_else(|e| panic!("{e:?}"));
        let Value::Map(entries) = &node.value else { panic!("a mapping") };
        assert!(matches!(&entries[1].1.value, Value::List(items) if items.len() == 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn both_parsers_see_the_same_tree(text in "([ \\-:,\\[\\]{}#&*!|>'\"%~\n\t]|a|b|1|0x|\\.|e|true|null|\\$\\{A\\}|- |: |\n  |<<){0,40}") {
            // A text on which they differ must be refused; what is taken was seen alike by both.
            if !same_tree(&text) {
                prop_assert!(parse(&text, &file()).is_err());
            }
        }

        #[test]
        fn ordinary_documents_are_seen_alike(
            entries in proptest::collection::btree_map("[a-z_]{1,8}", "[A-Za-z0-9./:_@ ${}-]{0,20}", 0..6)
        ) {
            let text: String = entries.iter().map(|(key, value)| format!("{key}: \"{value}\"\n")).collect();
            prop_assert!(same_tree(&text), "{text}");
            let Ok(node) = parse(&text, &file()) else { return Err(TestCaseError::fail(format!("refused: {text}"))) };
            let read: Vec<_> = match &node.value {
                Value::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), match &node.value {
                    Value::Scalar(scalar) => scalar.text.clone(),
                    _ => String::new(),
                })).collect(),
                _ => Vec::new(),
            };
            prop_assert_eq!(read, entries.into_iter().collect::<Vec<_>>());
        }
    }
}
