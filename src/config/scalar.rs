//! One scalar as text, truth value, duration, size, URL or one of a few words.

use super::error::did_you_mean;
use super::fields::Problems;
use super::node::{Kind, Node, Scalar, Value};
pub(crate) use crate::base::loopback::is_loopback;
use std::time::Duration;
use url::Url;

fn scalar<'n>(node: &'n Node, expected: &str, problems: &Problems) -> Option<&'n Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        Value::Broken => None,
        Value::Null | Value::List(_) | Value::Map(_) => {
            problems.say(&node.at, format!("expected {expected}, found {}", node.found()), None);
            None
        }
    }
}

/// Any scalar as text: digits and `true` too, as written.
pub(crate) fn text<'n>(node: &'n Node, problems: &Problems) -> Option<&'n str> {
    scalar(node, "text", problems).map(|scalar| &*scalar.text)
}

/// Text in which `{name}` is a capture.
pub(crate) fn template<'n>(node: &'n Node, problems: &Problems) -> Option<&'n str> {
    scalar(node, "text", problems).map(Scalar::as_template)
}

/// Whether the value is exactly this word, without a fault if it is not.
pub(crate) fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.text == word)
}

pub(crate) fn flag(node: &Node, problems: &Problems) -> Option<bool> {
    let scalar = scalar(node, "`true` or `false`", problems)?;
    if scalar.kind == Kind::Bool || scalar.filled {
        match scalar.text.to_ascii_lowercase().as_str() {
            "true" => return Some(true),
            "false" => return Some(false),
            _ => {}
        }
    }
    problems.say(&node.at, format!("expected `true` or `false`, found {}", node.found()), None);
    None
}

/// A whole number.
pub(crate) fn number(node: &Node, problems: &Problems) -> Option<u64> {
    let scalar = scalar(node, "a whole number", problems)?;
    let number = if scalar.kind == Kind::Number || scalar.filled { scalar.text.trim().parse().ok() } else { None };
    if number.is_none() {
        problems.say(&node.at, format!("expected a whole number, found {}", node.found()), None);
    }
    number
}

pub(crate) fn duration(node: &Node, problems: &Problems) -> Option<Duration> {
    let scalar = scalar(node, "a duration such as `30s`", problems)?;
    let text = scalar.text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let duration = humantime::parse_duration(text).ok();
    if duration.is_none() {
        let unit = text.parse::<f64>().is_ok().then(|| format!("a unit is missing: `{}s`?", super::node::shown(&scalar.written)));
        problems.say(&node.at, format!("expected a duration such as `500ms`, `30s`, `5m` or `1h`, found {}", node.found()), unit);
    }
    duration
}

/// A number of bytes: `65536`, `64KiB`, `10MB`.
pub(crate) fn size(node: &Node, problems: &Problems) -> Option<u64> {
    let scalar = scalar(node, "a size such as `64KiB`", problems)?;
    let size = parse_size(scalar.text.trim());
    if size.is_none() {
        problems.say(&node.at, format!("expected a size such as `64KiB`, `10MB` or a number of bytes, found {}", node.found()), None);
    }
    size
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(node: &Node, choices: &[(&'static str, T)], problems: &Problems) -> Option<T> {
    let all = choices.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    let scalar = scalar(node, &all, problems)?;
    let chosen = choices.iter().find(|(word, _)| *word == scalar.text).map(|(_, chosen)| *chosen);
    if chosen.is_none() {
        let hint = did_you_mean(&scalar.written, choices.iter().map(|(word, _)| *word));
        problems.say(&node.at, format!("expected {all}, found {}", node.found()), hint);
    }
    chosen
}

/// An absolute `https://` URL without fragment and user; plain `http://` for loopback hosts alone (RFC 6749 §3.1, RFC 9700 §2.6).
pub(crate) fn secure_url(node: &Node, problems: &Problems) -> Option<Url> {
    let url = any_url(node, problems)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        let hint = "plain http:// is for loopback hosts alone".to_owned();
        problems.say(&node.at, format!("expected an https:// URL, found {}", node.found()), Some(hint));
        return None;
    }
    Some(url)
}

/// An absolute http or https URL without fragment and user.
pub(crate) fn any_url(node: &Node, problems: &Problems) -> Option<Url> {
    let scalar = scalar(node, "a URL", problems)?;
    let found = node.found();
    let refuse = |message: String| {
        problems.say(&node.at, message, None);
        None
    };
    match Url::parse(&scalar.text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => refuse(format!("expected an https:// URL, found {found}")),
        Ok(url) if url.fragment().is_some() => refuse(format!("a URL here has no fragment (`#…`), found {found}")),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => refuse("a URL here has no user or password".to_owned()),
        Ok(url) => Some(url),
        Err(error) => refuse(format!("expected an https:// URL, found {found}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("65536", Some(65536)),
            ("64KiB", Some(65536)),
            ("64 kib", Some(65536)),
            ("10MB", Some(10_000_000)),
            ("1GiB", Some(1 << 30)),
            ("64K", None),
            ("-1", None),
            ("1.5MB", None),
            ("KiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }
}
