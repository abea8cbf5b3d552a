//! Reads a mapping key by key, collecting every fault, so that one bad field never hides another.

use super::error::{At, ConfigError, did_you_mean};
use super::node::{Key, Node, Value};
use super::scalar;
use std::cell::RefCell;
use std::time::Duration;

/// Everything that was found wrong or odd so far.
#[derive(Default)]
pub(crate) struct Problems {
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<String>>,
    /// Every key that a reader asked for, by shape: what the schema is held against.
    #[cfg(test)]
    pub(crate) keys: RefCell<std::collections::BTreeMap<&'static str, std::collections::BTreeSet<&'static str>>>,
}

impl Problems {
    pub(crate) fn say(&self, at: &At, message: impl Into<String>, hint: Option<String>) {
        self.push(ConfigError::at(at, message, hint));
    }

    /// A fault found by a parser inside a scalar's text. Its words quote that text, so they are withheld where a variable stood in it.
    pub(crate) fn say_inside(&self, node: &Node, offset: usize, message: impl Into<String>, hint: Option<String>) {
        if node.is_filled() {
            self.say(&node.at, format!("{} is refused here once its variables are filled in", node.found()), None);
        } else {
            self.say(&node.at_offset(offset), message, hint);
        }
    }

    pub(crate) fn push(&self, error: ConfigError) {
        let mut errors = self.errors.borrow_mut();
        // A definition that several registrations use is read once for each, its faults told once.
        if !errors.contains(&error) {
            errors.push(error);
        }
    }

    pub(crate) fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    pub(crate) fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    /// The errors in the order of their places, and the warnings; none are left here. `filled` is what variables held: messages show text
    /// as it was written, and this is the backstop for one that forgot to.
    pub(crate) fn take(&self, filled: &[String]) -> (Vec<ConfigError>, Vec<String>) {
        let (mut errors, mut warnings) = (self.errors.take(), self.warnings.take());
        let texts = errors.iter_mut().flat_map(|error| std::iter::once(&mut error.message).chain(&mut error.hint)).chain(&mut warnings);
        texts.for_each(|text| mask(text, filled));
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        (errors, warnings)
    }
}

/// Replaces each of `filled`, however its letters were folded. Very short ones stay: they would tear holes in every sentence, and are no secrets.
fn mask(text: &mut String, filled: &[String]) {
    for value in filled.iter().filter(|value| value.len() >= 6) {
        let needle = value.to_ascii_lowercase();
        while let Some(at) = text.to_ascii_lowercase().find(&needle) {
            text.replace_range(at..at + needle.len(), "…");
        }
    }
}

/// The name of a kind of mapping: in the schema, and in a sentence.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that holds the schema against the readers"))]
    pub(crate) name: &'static str,
    pub(crate) said: &'static str,
}

/// A mapping being read. Call [`Fields::finish`] at the end: it tells the unknown keys.
pub(crate) struct Fields<'n> {
    shape: Shape,
    pub(crate) at: &'n At,
    entries: &'n [(Key, Node)],
    known: RefCell<Vec<&'static str>>,
    pub(crate) problems: &'n Problems,
}

impl<'n> Fields<'n> {
    /// The mapping `node`; nothing at all is an empty one.
    pub(crate) fn open(node: &'n Node, shape: Shape, problems: &'n Problems) -> Option<Fields<'n>> {
        let entries: &[(Key, Node)] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            Value::Broken => return None,
            Value::Scalar(_) | Value::List(_) => {
                problems.say(&node.at, format!("expected {} as a mapping (`key: value` lines), found {}", shape.said, node.found()), None);
                return None;
            }
        };
        Some(Fields { shape, at: &node.at, entries, known: RefCell::default(), problems })
    }

    pub(crate) fn say(&self, at: &At, message: impl Into<String>, hint: Option<String>) {
        self.problems.say(at, message, hint);
    }

    fn know(&self, key: &'static str) {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        #[cfg(test)]
        self.problems.keys.borrow_mut().entry(self.shape.name).or_default().insert(key);
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<&'n Node> {
        self.know(key);
        self.peek(key)
    }

    /// The value of a key without making it known.
    pub(crate) fn peek(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(found, _)| found.text == key).map(|(_, node)| node)
    }

    /// Where the key stands, or the mapping where it does not.
    pub(crate) fn at_key(&self, key: &str) -> &'n At {
        self.entries.iter().find(|(found, _)| found.text == key).map_or(self.at, |(found, _)| &found.at)
    }

    pub(crate) fn need(&self, key: &'static str) -> Option<&'n Node> {
        let node = self.get(key);
        if node.is_none() {
            let near = self.entries.iter().map(|(key, _)| &*key.text);
            let hint = super::error::nearest(key, near).filter(|near| *near != key).map(|near| format!("is `{near}` meant to be `{key}`?"));
            self.say(self.at, format!("{} needs `{key}`", self.shape.said), hint);
        }
        node
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<&'n str> {
        scalar::text(self.get(key)?, self.problems)
    }

    /// Text that is not empty.
    pub(crate) fn word(&self, key: &'static str) -> Option<&'n str> {
        let node = self.get(key)?;
        let text = scalar::text(node, self.problems)?;
        if text.is_empty() {
            self.say(&node.at, format!("`{key}` is empty"), None);
            return None;
        }
        Some(text)
    }

    pub(crate) fn flag(&self, key: &'static str) -> Option<bool> {
        scalar::flag(self.get(key)?, self.problems)
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        scalar::duration(self.get(key)?, self.problems)
    }

    /// A duration, or `none` for no limit: `Some(None)`.
    pub(crate) fn limit(&self, key: &'static str) -> Option<Option<Duration>> {
        let node = self.get(key)?;
        if scalar::is_word(node, "none") { Some(None) } else { scalar::duration(node, self.problems).map(Some) }
    }

    pub(crate) fn size(&self, key: &'static str) -> Option<u64> {
        scalar::size(self.get(key)?, self.problems)
    }

    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        scalar::choice(self.get(key)?, choices, self.problems)
    }

    /// The items of a list; nothing at all is an empty one. `None` where the key is not there or holds something else.
    pub(crate) fn list(&self, key: &'static str) -> Option<&'n [Node]> {
        list(self.get(key)?, self.problems)
    }

    /// A list of texts, each with its node.
    pub(crate) fn texts(&self, key: &'static str) -> Option<Vec<(&'n Node, &'n str)>> {
        Some(self.list(key)?.iter().filter_map(|node| Some((node, scalar::text(node, self.problems)?))).collect())
    }

    /// A mapping of names of the operator's own choice.
    pub(crate) fn pairs(&self, key: &'static str) -> &'n [(Key, Node)] {
        match self.get(key) {
            Some(node) => pairs(node, "a mapping of names to values", self.problems),
            None => &[],
        }
    }

    pub(crate) fn section(&self, key: &'static str, shape: Shape) -> Option<Fields<'n>> {
        Fields::open(self.get(key)?, shape, self.problems)
    }

    /// Tells every key that nobody asked for.
    pub(crate) fn finish(self) {
        let known = self.known.into_inner();
        for (key, _) in self.entries {
            if known.contains(&&*key.text) || key.text.contains("${") {
                continue;
            }
            let all = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let message = format!("unknown key `{}` in {}; expected one of {all}", super::node::shown(&key.text), self.shape.said);
            self.problems.say(&key.at, message, did_you_mean(&key.text, known.iter().copied()));
        }
    }
}

/// The items of a list; nothing at all is an empty one.
pub(crate) fn list<'n>(node: &'n Node, problems: &Problems) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(nodes) => Some(nodes),
        Value::Null => Some(&[]),
        Value::Broken => None,
        Value::Scalar(_) | Value::Map(_) => {
            let hint =
                matches!(node.value, Value::Scalar(_)).then(|| "write it as `[one, two]`, or as lines that begin with `- `".to_owned());
            problems.say(&node.at, format!("expected a list, found {}", node.found()), hint);
            None
        }
    }
}

/// The entries of a mapping; nothing at all is an empty one.
pub(crate) fn pairs<'n>(node: &'n Node, expected: &str, problems: &Problems) -> &'n [(Key, Node)] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null | Value::Broken => &[],
        Value::Scalar(_) | Value::List(_) => {
            problems.say(&node.at, format!("expected {expected}, found {}", node.found()), None);
            &[]
        }
    }
}
