//! `attach`: how the token goes on a call.

use crate::attach::Scheme;
use crate::config::error::did_you_mean;
use crate::config::fields::{Fields, Problems, Shape};
use crate::config::headers;
use crate::config::node::{Node, Value};
use crate::config::oauth1;
use http::HeaderName;

const ATTACH: Shape = Shape { name: "AttachPlace", said: "`attach`" };

/// `bearer`, `basic`, `oauth1`, `{scheme: WORD}`, `{header: NAME}` or `{query: NAME}`.
pub(in crate::config) fn read(node: &Node, problems: &Problems) -> Option<Scheme> {
    if let Value::Scalar(scalar) = &node.value {
        if &*scalar.text == "oauth1" {
            return Some(oauth1::unsigned());
        }
        let words = [("bearer", Scheme::Bearer), ("basic", Scheme::Basic), ("dpop", Scheme::Dpop)];
        let found = words.into_iter().find(|(word, _)| *word == scalar.text);
        if found.is_none() {
            let hint = did_you_mean(&scalar.written, ["bearer", "basic", "oauth1", "dpop"]);
            let expected = "`bearer`, `basic`, `oauth1`, `dpop`, `{scheme: WORD}`, `{header: NAME}` or `{query: NAME}`";
            problems.say(&node.at, format!("expected {expected}, found {}", node.found()), hint);
        }
        return found.map(|(_, scheme)| scheme);
    }
    let fields = Fields::open(node, ATTACH, problems)?;
    let (scheme, header, query) = (fields.word("scheme"), fields.word("header"), fields.word("query"));
    let (scheme_node, header_node) = (fields.peek("scheme"), fields.peek("header"));
    fields.finish();
    let at = &node.at;
    match (scheme, header, query) {
        (Some(word), None, None) => scheme_word(word, scheme_node.unwrap_or(node), problems),
        (None, Some(name), None) => attach_header(name, header_node.unwrap_or(node), problems),
        (None, None, Some(name)) => Some(Scheme::Query(name.into())),
        (None, None, None) => None,
        _ => {
            problems.say(at, "`attach` takes one of `scheme`, `header` and `query`", None);
            None
        }
    }
}

fn scheme_word(word: &str, node: &Node, problems: &Problems) -> Option<Scheme> {
    // The scheme is a token (RFC 9110 §11.1), as header names are.
    if HeaderName::from_bytes(word.as_bytes()).is_ok() {
        return Some(Scheme::Word(word.into()));
    }
    problems.say(&node.at, format!("{} cannot be a scheme of the Authorization header", node.found()), None);
    None
}

fn attach_header(name: &str, node: &Node, problems: &Problems) -> Option<Scheme> {
    let header = headers::name(name, node, problems)?;
    if let Some(why) = headers::reserved(&header) {
        problems.say(&node.at, format!("a token cannot stand in `{header}`: {why}"), None);
        return None;
    }
    Some(Scheme::Header(header))
}
