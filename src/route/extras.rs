//! What a call's connection brings to the rewriting besides its token: values that templates name, and query pairs of its provider.
//!
//! A value is plain text, known before the call and the same for all calls of the connection: it is escaped here once for each place, and one
//! that cannot stand in a path is known for it before anything is written.

use super::path;
use super::template::query_text;
use std::collections::BTreeMap;

/// One connection's values and query pairs. Built once a token, shared by its calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    values: BTreeMap<Box<str>, Value>,
    pub(super) query: Box<[Pair]>,
    pub(super) set_query: Box<[Pair]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    text: Box<str>,
    /// Escaped for a path or a query.
    escaped: Box<str>,
    fits_path: bool,
}

/// A query pair that stands whatever the route's match took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) name: Box<[u8]>,
    /// `name=value`, escaped.
    pub(super) text: Box<str>,
}

impl Pair {
    fn new((name, value): &(Box<str>, String)) -> Self {
        Pair { name: name.as_bytes().into(), text: format!("{}={}", query_text(name), query_text(value)).into() }
    }
}

/// A value that a route's texts hold, and where the strictest of its places is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    pub name: Box<str>,
    /// Whether it stands in the upstream's path.
    pub in_path: bool,
}

impl Extras {
    pub fn new<'v>(values: impl IntoIterator<Item = (&'v str, Box<str>)>) -> Self {
        let one = |(name, text): (&'v str, Box<str>)| {
            let escaped = query_text(&text);
            // Servers decode `%2F` and `%2E` in a path, so the same is refused as in what a client sends.
            let fits_path = path::check(&escaped).is_ok();
            (name.into(), Value { text, escaped: escaped.into(), fits_path })
        };
        Extras { values: values.into_iter().map(one).collect(), ..Extras::default() }
    }

    /// With the provider's pairs: `query` unless the client sent one of that name, `set_query` whatever it sent.
    #[must_use]
    pub fn with_query(mut self, query: &[(Box<str>, String)], set_query: &[(Box<str>, String)]) -> Self {
        self.query = query.iter().map(Pair::new).collect();
        self.set_query = set_query.iter().map(Pair::new).collect();
        self
    }

    /// The value itself.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| &*value.text)
    }

    /// Whether the value is there and can stand where it is needed.
    pub fn meets(&self, need: &Need) -> bool {
        self.values.get(&need.name).is_some_and(|value| value.fits_path || !need.in_path)
    }

    pub(super) fn escaped(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| &*value.escaped)
    }

    /// Whether a pair of the client's goes, for the provider sets it.
    pub(super) fn sets(&self, is_named: impl Fn(&[u8]) -> bool) -> bool {
        self.set_query.iter().any(|pair| is_named(&pair.name))
    }
}

/// The names that the texts of a route may hold between braces.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'n> {
    /// The captures of its match.
    pub captures: &'n [&'n str],
    /// The values of a connection, each with the text that the registration fixes for all connections.
    pub values: &'n [(&'n str, Option<&'n str>)],
}

impl<'n> Names<'n> {
    /// The value of that name: its fixed text, if it has one.
    pub(super) fn value(&self, name: &str) -> Option<Option<&'n str>> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, given)| *given)
    }

    /// Every name.
    pub(super) fn all(&self) -> impl Iterator<Item = &'n str> {
        self.captures.iter().copied().chain(self.values.iter().map(|(name, _)| *name))
    }
}

impl<'n> From<&'n [&'n str]> for Names<'n> {
    fn from(captures: &'n [&'n str]) -> Self {
        Names { captures, values: &[] }
    }
}

impl<'n> From<&'n Vec<&'n str>> for Names<'n> {
    fn from(captures: &'n Vec<&'n str>) -> Self {
        Names { captures, values: &[] }
    }
}

impl<'n, const N: usize> From<&'n [&'n str; N]> for Names<'n> {
    fn from(captures: &'n [&'n str; N]) -> Self {
        Names { captures, values: &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_would_walk_a_path_fits_everywhere_else() {
        for (text, in_path) in [("acme", true), ("a b/c", true), ("..", false), ("../x", false), ("a\\b", false), (".x", true), ("é", true)]
        {
            let extras = Extras::new([("v", text.into())]);
            assert_eq!(extras.meets(&Need { name: "v".into(), in_path: true }), in_path, "{text}");
            assert!(extras.meets(&Need { name: "v".into(), in_path: false }), "{text}");
            assert!(!extras.meets(&Need { name: "w".into(), in_path: false }));
        }
    }
}
