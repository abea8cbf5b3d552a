//! JSON and forms with `{name}` captures in them: what a route's `send` puts into a body or a header (contract §3, THREATS row 42).
//!
//! A capture is decoded once and is data wherever it stands: it can end no string, no member and no pair. The shape is the operator's alone.

use super::extras::Names;
use super::pattern::Captures;
use super::rewrite::{join_pairs, parse_pair, push_pieces};
use super::template::{Piece, TemplateError, TemplateFault, given, join, push_query_capture, scan, values};
use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::fmt::Write as _;

/// A JSON value of which the texts may hold captures.
#[derive(Debug, Clone)]
pub enum JsonTemplate {
    /// Without captures; JSON as it is sent.
    Fixed(Box<str>),
    Text(JsonText),
    List(Vec<JsonTemplate>),
    /// The names as they are sent, in their quotes.
    Map(Vec<(Box<str>, JsonTemplate)>),
}

/// One text of a [`JsonTemplate`]. It stays a text, even where it is nothing but a capture that looks like a number.
#[derive(Debug, Clone)]
pub struct JsonText(Box<[Piece]>);

/// A form's pairs (`application/x-www-form-urlencoded`), of which the values may hold captures.
#[derive(Debug, Clone)]
pub struct FormTemplate(Box<[Piece]>);

impl JsonTemplate {
    /// A text. `names` are those that its route may write: the captures of its match, and values of its connections.
    ///
    /// # Errors
    /// The first fault from the left.
    pub fn text<'n>(text: &str, names: impl Into<Names<'n>>) -> Result<JsonTemplate, TemplateError> {
        let names = names.into();
        let pieces = join(scan(text, names)?.into_iter().map(|(_, piece)| given(piece, names, str::to_owned)));
        Ok(match &*pieces {
            [] => JsonTemplate::fixed(&Value::from("")),
            [Piece::Text(text)] => JsonTemplate::fixed(&Value::from(&**text)),
            _ => JsonTemplate::Text(JsonText(pieces)),
        })
    }

    /// A value that is the same for every call.
    pub fn fixed(value: &Value) -> JsonTemplate {
        JsonTemplate::Fixed(value.to_string().into())
    }

    pub fn map(members: impl IntoIterator<Item = (String, JsonTemplate)>) -> JsonTemplate {
        JsonTemplate::Map(members.into_iter().map(|(name, value)| (Value::from(name).to_string().into(), value)).collect())
    }

    /// The values of a connection that stand in it.
    pub fn values(&self) -> Vec<&str> {
        match self {
            JsonTemplate::Fixed(_) => Vec::new(),
            JsonTemplate::Text(text) => values(&text.0).collect(),
            JsonTemplate::List(items) => items.iter().flat_map(JsonTemplate::values).collect(),
            JsonTemplate::Map(members) => members.iter().flat_map(|(_, value)| value.values()).collect(),
        }
    }

    /// The JSON for one call.
    ///
    /// # Errors
    /// When a capture is no UTF-8, which JSON must be (RFC 8259 §8.1).
    pub fn json(&self, captures: &Captures<'_>) -> Result<String, TemplateFault> {
        let mut out = String::with_capacity(128);
        self.push(captures, &mut out)?;
        Ok(out)
    }

    /// The same where only visible ASCII can stand: all else is `\u`-escaped, which means the same JSON.
    ///
    /// # Errors
    /// As [`JsonTemplate::json`].
    pub fn header_value(&self, captures: &Captures<'_>) -> Result<HeaderValue, TemplateFault> {
        let json = self.json(captures)?;
        let mut ascii = String::with_capacity(json.len());
        for char in json.chars() {
            if matches!(char, ' '..='~') {
                ascii.push(char);
            } else {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(ascii, "\\u{unit:04x}");
                }
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(ascii)).map_err(|_| TemplateFault::HeaderBytes)
    }

    fn push(&self, captures: &Captures<'_>, out: &mut String) -> Result<(), TemplateFault> {
        match self {
            JsonTemplate::Fixed(json) => out.push_str(json),
            JsonTemplate::Text(text) => out.push_str(&Value::from(text.decoded(captures)?).to_string()),
            JsonTemplate::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.push(captures, out)?;
                }
                out.push(']');
            }
            JsonTemplate::Map(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(name);
                    out.push(':');
                    value.push(captures, out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

impl JsonText {
    fn decoded(&self, captures: &Captures<'_>) -> Result<String, TemplateFault> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Capture(name) => {
                    let raw = percent_decode_str(captures.get(name).unwrap_or_default());
                    text.push_str(&raw.decode_utf8().map_err(|_| TemplateFault::NotText)?);
                }
                // Whether it is there was asked before the call was built: see `Need`.
                Piece::Value(name) => text.push_str(captures.extras().and_then(|extras| extras.get(name)).unwrap_or_default()),
            }
        }
        Ok(text)
    }
}

impl FormTemplate {
    /// Reads one value of a form, so that its fault can be told at its place.
    ///
    /// # Errors
    /// The first fault from the left.
    pub fn parse<'n>(pairs: &[(String, String)], names: impl Into<Names<'n>>) -> Result<FormTemplate, TemplateError> {
        let names = names.into();
        let pairs = pairs.iter().map(|(name, value)| parse_pair(name, value, names));
        Ok(FormTemplate(join_pairs(pairs.collect::<Result<_, _>>()?)))
    }

    /// The values of a connection that stand in it.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        values(&self.0)
    }

    /// The form for one call.
    pub fn form(&self, captures: &Captures<'_>) -> String {
        let mut out = String::with_capacity(128);
        push_pieces(&self.0, captures, &mut out, push_query_capture);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::pattern::CAPTURES_MAX;
    use serde_json::json;

    fn with<T>(id: &str, work: impl FnOnce(&Captures<'_>) -> T) -> T {
        let names = ["id".into()];
        let mut values = [""; CAPTURES_MAX];
        values[0] = id;
        work(&Captures::new(&names, values))
    }

    fn template() -> JsonTemplate {
        let text = |text| JsonTemplate::text(text, &["id"][..]).expect(text);
        JsonTemplate::map([
            ("path".to_owned(), text("{id}")),
            ("list".to_owned(), JsonTemplate::List(vec![text("a/{id}/b"), JsonTemplate::fixed(&json!(1)), text("{{x}}")])),
            ("\"quoted\"".to_owned(), JsonTemplate::fixed(&json!(null))),
        ])
    }

    /// What people try to break out of a string with, as it stands in a path.
    const HOSTILE: [&str; 10] = [
        "7",
        "%22%7D%2C%22x%22%3A%22",
        "\"},\"x\":\"",
        "%0d%0aX-Evil:%201",
        "a%5Cb%5C",
        "%00%1b%7f",
        "caf%C3%A9%20%F0%9F%93%B7%E2%80%A8",
        "{id}",
        "&alt=media&x=1",
        "true",
    ];

    /// Fails without the serializer: a capture that is pasted into the JSON ends its text early.
    #[test]
    fn threat_42_a_capture_is_one_json_text_whatever_it_holds() {
        for raw in HOSTILE {
            let decoded = percent_decode_str(raw).decode_utf8().expect("UTF-8").into_owned();
            let expected = json!({"path": decoded, "list": [format!("a/{decoded}/b"), 1, "{x}"], "\"quoted\"": null});
            let sent = with(raw, |captures| template().json(captures)).expect(raw);
            assert_eq!(serde_json::from_str::<Value>(&sent).expect(&sent), expected, "{raw}");
            let header = with(raw, |captures| template().header_value(captures)).expect(raw);
            let header = header.to_str().expect("visible ASCII");
            assert_eq!(serde_json::from_str::<Value>(header).expect(header), expected, "{raw}");
            assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{header}");
        }
    }

    /// Fails without the escaping of captures: `&` and `=` begin parameters of their own.
    #[test]
    fn threat_42_a_capture_is_one_form_value_whatever_it_holds() {
        let pairs = [("a b".to_owned(), "x={id}&y".to_owned()), ("c".to_owned(), String::new())];
        let form = FormTemplate::parse(&pairs, &["id"][..]).expect("valid");
        for raw in HOSTILE {
            let decoded = percent_decode_str(raw).decode_utf8().expect("UTF-8").into_owned();
            let sent = with(raw, |captures| form.form(captures));
            let read: Vec<_> = form_urlencoded::parse(sent.as_bytes()).into_owned().collect();
            assert_eq!(read, [("a b".to_owned(), format!("x={decoded}&y")), ("c".to_owned(), String::new())], "{raw}: {sent}");
        }
    }

    #[test]
    fn json_takes_no_bytes_that_are_no_text() {
        assert_eq!(with("%FF", |captures| template().json(captures)), Err(TemplateFault::NotText));
        assert_eq!(with("%FF", |captures| template().header_value(captures)), Err(TemplateFault::NotText));
    }

    #[test]
    fn faults_are_told_where_they_stand() {
        assert_eq!(JsonTemplate::text("a {idd}", &["id"][..]).expect_err("unknown").offset, 2);
        assert!(FormTemplate::parse(&[("a".to_owned(), "{".to_owned())], &["id"][..]).is_err());
    }
}
