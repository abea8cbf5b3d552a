//! Text with `{name}` captures for one place, and how a capture is escaped there (contract §3, THREATS row 42).
//!
//! A capture is decoded once and then judged or escaped by the place it comes to stand in; `{{` and `}}` are literal braces.

use super::extras::Names;
use super::pattern::{Captures, is_capture_name};
use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode_byte, utf8_percent_encode};

/// All but RFC 3986 §2.3's unreserved characters: what is escaped so can stand in any part of a query without a meaning of its own.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Names this near are worth a hint.
const NEAR_MIN: f64 = 0.75;

/// A header value that may hold captures.
#[derive(Debug, Clone)]
pub struct Template {
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    /// Without captures it is built once, and each call shares its bytes.
    Fixed(HeaderValue),
    Pieces(Box<[Piece]>),
}

/// Literal text ready for its place, or the name of what is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Box<str>),
    Capture(Box<str>),
    /// A value of the call's connection.
    Value(Box<str>),
}

/// Which of the texts of a route a fault stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one text that was parsed.
    Text,
    /// The path and query of `upstream`.
    Upstream,
    /// The entry of `query` at this index.
    Query(usize),
    /// The entry of `set_query` at this index.
    SetQuery(usize),
}

/// A text that is no template for its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    pub place: Place,
    /// The byte of that text at which the fault begins; of `query` and `set_query`, the byte of the value.
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// A call's captures cannot stand in this place. The client's fault: 400 `bad-path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    #[error("a part of the path holds bytes that cannot stand in a header")]
    HeaderBytes,
    #[error("a part of the path is no UTF-8 text")]
    NotText,
}

impl TemplateError {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        TemplateError { place: Place::Text, offset, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }
}

impl Template {
    /// Reads a header value. `names` are those that its route may write: the captures of its match, and values of its connections.
    ///
    /// # Errors
    /// The first fault from the left.
    pub fn parse<'n>(text: &str, names: impl Into<Names<'n>>) -> Result<Template, TemplateError> {
        let names = names.into();
        if let Some(offset) = text.find(|char: char| char.is_ascii_control()) {
            return Err(TemplateError::new(offset, "a control byte cannot stand in a header value"));
        }
        let pieces = join(scan(text, names)?.into_iter().map(|(_, piece)| given(piece, names, str::to_owned)));
        let value = match &*pieces {
            [] => Value::Fixed(HeaderValue::from_static("")),
            [Piece::Text(text)] => {
                // Control bytes are out, and nothing else is refused by `HeaderValue`.
                Value::Fixed(
                    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| TemplateError::new(0, "this cannot stand in a header value"))?,
                )
            }
            _ => Value::Pieces(pieces),
        };
        Ok(Template { value })
    }

    /// The values of a connection that stand in it.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let pieces: &[Piece] = match &self.value {
            Value::Fixed(_) => &[],
            Value::Pieces(pieces) => pieces,
        };
        values(pieces)
    }

    /// The value for one call, its captures decoded once.
    ///
    /// # Errors
    /// When a capture holds control bytes: a header has no escape for them, and they must not end it early.
    pub fn header_value(&self, captures: &Captures<'_>) -> Result<HeaderValue, TemplateFault> {
        let pieces = match &self.value {
            Value::Fixed(value) => return Ok(value.clone()),
            Value::Pieces(pieces) => pieces,
        };
        let mut bytes = Vec::with_capacity(64);
        for piece in pieces {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Capture(name) => bytes.extend(percent_decode_str(captures.get(name).unwrap_or_default())),
                Piece::Value(name) => {
                    // Whether it is there was asked before the call was built: see `Need`.
                    let value = captures.extras().and_then(|extras| extras.get(name));
                    bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
                }
            }
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(TemplateFault::HeaderBytes);
        }
        HeaderValue::from_maybe_shared(Bytes::from(bytes)).map_err(|_| TemplateFault::HeaderBytes)
    }
}

/// Cuts `text` at its places and escaped braces; each piece with the byte it begins at.
pub(super) fn scan(text: &str, names: Names<'_>) -> Result<Vec<(usize, Piece)>, TemplateError> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(left) = text.get(at..).filter(|left| !left.is_empty()) {
        let piece = match left.find(['{', '}']) {
            Some(0) if left.starts_with("{{") => (2, Piece::Text("{".into())),
            Some(0) if left.starts_with("}}") => (2, Piece::Text("}".into())),
            Some(0) => {
                let piece = place(left, at, names)?;
                let (Piece::Text(name) | Piece::Capture(name) | Piece::Value(name)) = &piece;
                (name.len() + 2, piece)
            }
            end => {
                let literal = &left[..end.unwrap_or(left.len())];
                (literal.len(), Piece::Text(literal.into()))
            }
        };
        pieces.push((at, piece.1));
        at += piece.0;
    }
    Ok(pieces)
}

/// What the braces that `left` begins with name.
fn place(left: &str, at: usize, names: Names<'_>) -> Result<Piece, TemplateError> {
    let name = left.strip_prefix('{').and_then(|inner| inner.split_once('}')).map(|(name, _)| name);
    let Some(name) = name.filter(|name| is_capture_name(name)) else {
        if let Some(name) = name.and_then(|name| name.strip_prefix('*')).filter(|name| is_capture_name(name)) {
            let error = TemplateError::new(at, format!("`{{*{name}}}` stands in a match alone"));
            return Err(error.hint(format!("its text is written `{{{name}}}` here")));
        }
        return Err(TemplateError::new(at, "this brace opens or closes no capture").hint("a literal brace is written `{{` or `}}`"));
    };
    match (names.captures.contains(&name), names.value(name)) {
        (true, None) => Ok(Piece::Capture(name.into())),
        (false, Some(_)) => Ok(Piece::Value(name.into())),
        (true, Some(_)) => {
            let error = TemplateError::new(at, format!("`{{{name}}}` is both a capture of the match and a value of the connection"));
            Err(error.hint("give the capture another name"))
        }
        (false, None) => {
            let hint = match nearest(name, names.all()) {
                Some(near) => format!("did you mean `{{{near}}}`?"),
                None if names.all().next().is_none() => "the match has no captures; literal braces are written `{{` and `}}`".to_owned(),
                None => {
                    let known =
                        |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("`{{{name}}}`")).collect::<Vec<_>>().join(", ");
                    let captures = known(&mut names.captures.iter().copied());
                    let values = known(&mut names.values.iter().map(|(name, _)| *name));
                    match (&*captures, &*values) {
                        (captures, "") => format!("the match has {captures}"),
                        ("", values) => format!("the provider has {values}"),
                        (captures, values) => format!("the match has {captures}; the provider has {values}"),
                    }
                }
            };
            Err(TemplateError::new(at, format!("the match has no capture `{name}`")).hint(hint))
        }
    }
}

/// A value that the registration fixes is text like any other, escaped for its place.
pub(super) fn given(piece: Piece, names: Names<'_>, escape: impl Fn(&str) -> String) -> Piece {
    match piece {
        Piece::Value(name) => match names.value(&name).flatten() {
            Some(text) => Piece::Text(escape(text).into()),
            None => Piece::Value(name),
        },
        piece => piece,
    }
}

/// The values that stand in these pieces.
pub(super) fn values(pieces: &[Piece]) -> impl Iterator<Item = &str> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Value(name) => Some(&**name),
        Piece::Text(_) | Piece::Capture(_) => None,
    })
}

/// The nearest known name, if any is near.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    scored.filter(|(score, _)| *score >= NEAR_MIN).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// Neighbouring texts become one piece.
pub(super) fn join(pieces: impl IntoIterator<Item = Piece>) -> Box<[Piece]> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => *before = format!("{before}{text}").into(),
            (_, piece) => joined.push(piece),
        }
    }
    joined.into()
}

/// Plain text as it stands in a query.
pub(super) fn query_text(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A capture as it stands in a query: decoded once, then escaped, so that it ends neither its value nor the query.
pub(super) fn push_query_capture(raw: &str, out: &mut String) {
    for byte in percent_decode_str(raw) {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(percent_encode_byte(byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::pattern::CAPTURES_MAX;

    fn render(text: &str, id: &str) -> Result<HeaderValue, TemplateFault> {
        let names = ["id".into(), "rest".into()];
        let mut values = [""; CAPTURES_MAX];
        values[..2].copy_from_slice(&[id, "a/b"]);
        Template::parse(text, &["id", "rest"]).expect(text).header_value(&Captures::new(&names, values))
    }

    #[test]
    fn a_header_value_holds_captures_decoded_once() {
        for (text, id, expected) in [
            ("", "7", ""),
            ("plain", "7", "plain"),
            ("{{id}} {{{id}}}", "7", "{id} {7}"),
            ("{id}", "7", "7"),
            ("id={id}; rest={rest}", "a%20b", "id=a b; rest=a/b"),
            ("{id}", "%2525%2F+", "%25/+"),
            ("{id}", "\"a,b\"", "\"a,b\""),
            ("{{\"path\":1}}", "7", "{\"path\":1}"),
        ] {
            assert_eq!(render(text, id).expect(text), expected, "{text}");
        }
        assert_eq!(render("{id}", "%E2%98%83").expect("valid").as_bytes(), "☃".as_bytes());
        assert_eq!(render("snow ☃", "7").expect("valid").as_bytes(), "snow ☃".as_bytes());
    }

    #[test]
    fn no_capture_ends_a_header() {
        for id in ["%0D%0AX-Evil:%201", "%0a", "%0D", "%00", "%1b[2J", "%7F", "%09", "a\r\nb"] {
            assert_eq!(render("{id}", id), Err(TemplateFault::HeaderBytes), "{id:?}");
            assert_eq!(render("fixed", id).expect("no capture"), "fixed");
        }
        // Escaped twice, it is harmless text.
        assert_eq!(render("{id}", "%250D%250A").expect("text"), "%0D%0A");
    }

    #[test]
    fn tells_where_and_what_is_wrong() {
        for (text, offset, part) in [
            ("a {ide}", 2, "did you mean `{id}`"),
            ("{zzz}", 0, "the match has `{id}`, `{rest}`"),
            ("{*rest}", 0, "written `{rest}` here"),
            ("{id", 0, "literal brace"),
            ("id}", 2, "literal brace"),
            ("{\"a\":1}", 0, "literal brace"),
            ("{}", 0, "literal brace"),
            ("{{{nope}}}", 2, "no capture `nope`"),
            ("a\r\nb", 1, "control byte"),
        ] {
            let error = Template::parse(text, &["id", "rest"]).expect_err(text);
            let told = format!("{error}; {}", error.hint.as_deref().unwrap_or(""));
            assert!(told.contains(part), "{text}: {told}");
            assert_eq!(error.offset, offset, "{text}: {told}");
        }
        let error = Template::parse("{id}", &[]).expect_err("no captures");
        assert!(error.hint.is_some_and(|hint| hint.contains("has no captures")));
    }
}
