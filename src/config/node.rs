//! The tree that the rest of this room reads: each value with its place, and scalars with the text as written beside the text they stand for.

use super::error::At;

/// A value at its place.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// `~`, `null` or nothing at all.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// A scalar whose fault was told already; its readers stay silent.
    Broken,
}

/// A key of a mapping.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) at: At,
    pub(crate) text: String,
}

/// What YAML itself takes an unquoted scalar for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Bool,
    Number,
}

/// One scalar. There is no `Debug`: its text may be a secret.
#[derive(Clone)]
pub(crate) struct Scalar {
    /// The text it stands for, variables filled in.
    pub(crate) text: String,
    /// The text as the file has it; what errors may show.
    pub(crate) written: String,
    pub(crate) kind: Kind,
    /// A variable or file stood in it, so that it may be a number or a truth value whatever YAML thought.
    pub(crate) filled: bool,
    /// The text with the braces that came out of a variable doubled: for places where `{name}` means a capture.
    pub(crate) template: Option<String>,
    /// How far right of its place its first character stands, where text and file agree character by character.
    pub(crate) inset: Option<usize>,
}

impl Scalar {
    /// The text for a place where `{name}` is a capture.
    pub(crate) fn as_template(&self) -> &str {
        self.template.as_deref().unwrap_or(&self.text)
    }
}

impl Node {
    /// What it is, for "expected …, found …". A scalar is shown as written, cut short.
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Broken => "a broken value".into(),
            Value::Scalar(scalar) => format!("`{}`", shown(&scalar.written)),
        }
    }

    /// Whether a variable or file stood in it.
    pub(crate) fn is_filled(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.filled)
    }

    /// The place of the byte `offset` of the scalar's text, or the scalar's own place where they cannot be matched.
    pub(crate) fn at_offset(&self, offset: usize) -> At {
        match &self.value {
            Value::Scalar(Scalar { text, inset: Some(inset), filled: false, .. }) => {
                self.at.right(inset + text.get(..offset).map_or(0, |before| before.chars().count()))
            }
            _ => self.at.clone(),
        }
    }
}

/// Text for an error: one line, cut at 60 characters.
pub(crate) fn shown(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(61).collect();
    match line.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}
