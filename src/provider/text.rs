//! A configured text with places that are filled in when it is used: `{client_id}`, `{realm_id}`, `{callback.device_id}`, `{sha256:client_secret|code}`.
//!
//! Not a route's template: those take captures of a request and escape them for a place; here the values are ours or the connection's, and the
//! caller escapes the whole. A text holds names alone, never a value, so that its `Debug` tells no secret.

use aws_lc_rs::digest;
use std::borrow::Cow;
use std::fmt::Write as _;

/// A text with places. Without any it is itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filled {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Value(Box<str>),
    /// The hex of the SHA-256 of these values, joined by `|`.
    Sha256(Vec<Box<str>>),
}

/// A text that is none: the byte at which its fault begins, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledFault {
    pub offset: usize,
    pub message: &'static str,
}

impl Filled {
    /// Reads a text; `{{` and `}}` are literal braces. Whether the names exist is the caller's to check, by [`Filled::names`].
    ///
    /// # Errors
    /// The first fault from the left.
    pub fn parse(text: &str) -> Result<Filled, FilledFault> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(char) = text[at..].chars().next() {
            let rest = &text[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push(char);
                at += 2;
            } else if char == '}' {
                return Err(FilledFault { offset: at, message: "a `}` that closes nothing; a literal one is `}}`" });
            } else if char == '{' {
                let end = rest.find('}').ok_or(FilledFault { offset: at, message: "a `{` that is not closed; a literal one is `{{`" })?;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                }
                pieces.push(place(&rest[1..end]).ok_or(FilledFault { offset: at, message: "not a name that can stand between braces" })?);
                at += end + 1;
            } else {
                literal.push(char);
                at += char.len_utf8();
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        Ok(Filled { pieces })
    }

    /// A text without places.
    pub fn plain(text: &str) -> Filled {
        Filled { pieces: if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.into())] } }
    }

    /// Every name that stands in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().flat_map(|piece| {
            match piece {
                Piece::Text(_) => [].as_slice(),
                Piece::Value(name) => std::slice::from_ref(name),
                Piece::Sha256(names) => names.as_slice(),
            }
            .iter()
            .map(|name| &**name)
        })
    }

    /// The text itself, where it has no places.
    pub fn fixed(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with those places filled in whose values are known by now. A hash of values stays as it is.
    pub fn fill_known<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Filled {
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in &self.pieces {
            let text: Cow<'_, str> = match piece {
                Piece::Text(text) => Cow::Borrowed(text),
                Piece::Value(name) => match value(name) {
                    Some(value) => value,
                    None => {
                        pieces.push(piece.clone());
                        continue;
                    }
                },
                Piece::Sha256(_) => {
                    pieces.push(piece.clone());
                    continue;
                }
            };
            match pieces.last_mut() {
                Some(Piece::Text(last)) => *last = format!("{last}{text}").into(),
                _ if text.is_empty() => {}
                _ => pieces.push(Piece::Text(text.into())),
            }
        }
        Filled { pieces }
    }

    /// The text with its places filled in; `None` where a value is missing.
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(name) => out.push_str(&value(name)?),
                Piece::Sha256(names) => {
                    let mut context = digest::Context::new(&digest::SHA256);
                    for (index, name) in names.iter().enumerate() {
                        if index > 0 {
                            context.update(b"|");
                        }
                        context.update(value(name)?.as_bytes());
                    }
                    for byte in context.finish().as_ref() {
                        // Writing to a String cannot fail.
                        let _ = write!(out, "{byte:02x}");
                    }
                }
            }
        }
        Some(out)
    }
}

fn place(inner: &str) -> Option<Piece> {
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    match inner.strip_prefix("sha256:") {
        Some(names) => {
            let names: Vec<Box<str>> = names.split('|').filter(|name| is_name(name)).map(Box::from).collect();
            (names.len() == inner.matches('|').count() + 1).then_some(Piece::Sha256(names))
        }
        None => is_name(inner).then(|| Piece::Value(inner.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Option<String> {
        let value = |name: &str| match name {
            "client_id" => Some("id".into()),
            "client_secret" => Some("s3".into()),
            "code" => Some("C1".into()),
            _ => None,
        };
        Filled::parse(text).expect(text).fill(value)
    }

    #[test]
    fn places_are_filled_in() {
        assert_eq!(fill("Client {client_id}, {{x}}").as_deref(), Some("Client id, {x}"));
        assert_eq!(fill("").as_deref(), Some(""));
        assert_eq!(fill("{realm_id}"), None);
        // printf 's3|C1' | sha256sum
        let hash = fill("{sha256:client_secret|code}").expect("filled");
        assert_eq!(hash.len(), 64);
        assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(Filled::parse("a{b}{sha256:c|d}").expect("text").names().collect::<Vec<_>>(), ["b", "c", "d"]);
    }

    #[test]
    fn known_values_are_filled_in_and_the_others_stay() {
        let text = Filled::parse("https://{host}/{a}-{b}").expect("text");
        let some = text.fill_known(|name| (name != "a").then(|| format!("<{name}>").into()));
        assert_eq!(some, Filled::parse("https://<host>/{a}-<b>").expect("text"));
        let all = some.fill_known(|name| Some(name.to_owned().into()));
        assert_eq!(all.fixed(), Some("https://<host>/a-<b>"));
    }

    #[test]
    fn faults_have_a_place() {
        for (text, offset) in [("a}", 1), ("ab{c", 2), ("{}", 0), ("x{a b}", 1), ("{sha256:}", 0), ("{sha256:a|}", 0)] {
            assert_eq!(Filled::parse(text).expect_err(text).offset, offset, "{text}");
        }
    }
}
