//! `inputs`, `metadata` and `lookups`: the values of one connection that may stand in places.

use super::attach;
use super::places::{Places, Value as Declared};
use crate::config::error::did_you_mean;
use crate::config::fields::{Fields, Problems, Shape};
use crate::config::node::{Key, Node, Value, shown};
use crate::config::scalar;
use crate::provider::{Capture, From, Input, Kind, Lookup, Path, TokenHost};

const INPUT: Shape = Shape { name: "Input", said: "an input" };
const CAPTURE: Shape = Shape { name: "Capture", said: "a metadata value" };
const LOOKUP: Shape = Shape { name: "Lookup", said: "a lookup" };

/// Names that have a meaning of their own in texts and in a connection's metadata.
const RESERVED: &[&str] = &[
    "client_id",
    "client_secret",
    "redirect_uri",
    "code",
    "state",
    "scope",
    "token",
    "refresh_token",
    "access_token",
    "user_code",
    "sub",
    "refresh_expires_at",
];

/// The connect page's own fields: no input can be called like one.
const OF_THE_PAGE: &[&str] = &["provider", "end_user", "api_key", "username", "password"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum KindWord {
    Text,
    Label,
    Host,
    Origin,
}

const KINDS: &[(&str, KindWord)] =
    &[("text", KindWord::Text), ("label", KindWord::Label), ("host", KindWord::Host), ("origin", KindWord::Origin)];

/// How a text is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Reading {
    /// A definition by itself: a registration may still say what is missing.
    Definition,
    /// A registration with its definition under it, to be used as it is.
    Whole,
    /// A registration whose definition cannot be read: only faults of its own count.
    Alone,
}

pub(super) fn inputs(fields: &Fields<'_>, reading: Reading) -> Vec<Input> {
    let entries = fields.pairs("inputs");
    let mut all = Vec::new();
    for (key, node) in entries {
        if !is_name(key, OF_THE_PAGE, fields.problems) {
            continue;
        }
        match &node.value {
            Value::Broken => {}
            Value::Map(_) => all.extend(input(key, node, reading, fields.problems)),
            // With its definition under it, it would be a mapping by now.
            Value::Scalar(_) | Value::Null | Value::List(_) if reading != Reading::Alone => {
                let others = entries.iter().filter(|(_, node)| matches!(node.value, Value::Map(_))).map(|(key, _)| &*key.text);
                let hint = did_you_mean(&key.text, others).unwrap_or_else(|| "a new one is `NAME: {label: …, kind: …}`".to_owned());
                fields.say(&key.at, format!("the definition has no input called `{}`", shown(&key.text)), Some(hint));
            }
            Value::Scalar(_) | Value::Null | Value::List(_) => {}
        }
    }
    all
}

fn input(key: &Key, node: &Node, reading: Reading, problems: &Problems) -> Option<Input> {
    let fields = Fields::open(node, INPUT, problems)?;
    let owned = |text: &str| Box::<str>::from(text);
    let name = owned(&key.text);
    let (label, example, suffix) = (fields.word("label").map(owned), fields.word("example").map(owned), fields.word("suffix").map(owned));
    let word = fields.choice("kind", KINDS);
    let broken = fields.peek("value").is_some_and(|node| matches!(node.value, Value::Broken));
    let value_node = fields.get("value").filter(|_| !broken);
    let value = value_node.and_then(|node| scalar::text(node, problems)).map(|text| without(text, suffix.as_deref()));
    let kind = kind(&fields, word, value.as_deref())?;
    let checked = value.as_deref().and_then(|value| kind.check(value));
    if let (Some(node), Some(_), None) = (value_node, &value, &checked) {
        let said = match &kind {
            Kind::Text => "expected text of at most 512 bytes".to_owned(),
            Kind::Label => "expected one label of a host name (letters, digits and `-`)".to_owned(),
            Kind::Host(hosts) if hosts.is_empty() => "expected a host".to_owned(),
            Kind::Origin(hosts) if hosts.is_empty() => "expected an https:// URL".to_owned(),
            Kind::Host(hosts) => format!("expected a host among {}", listed(hosts)),
            Kind::Origin(hosts) => format!("expected an https:// URL whose host is among {}", listed(hosts)),
        };
        problems.say(&node.at, format!("{said} for `{name}`, found {}", node.found()), None);
    }
    if reading == Reading::Whole && value.is_none() && !broken {
        needs_hosts(&kind, &key.text, "inputs", &fields);
    }
    fields.finish();
    Some(Input { label: label.unwrap_or_else(|| name.clone()), name, example, kind, value: checked, suffix })
}

/// A host that may be anyone's would send secrets to anyone.
fn needs_hosts(kind: &Kind, name: &str, section: &str, fields: &Fields<'_>) {
    if let Kind::Host(hosts) | Kind::Origin(hosts) = kind
        && hosts.is_empty()
    {
        let value = if section == "inputs" { format!("`inputs: {{{name}: cloud.example.com}}`, or ") } else { String::new() };
        let hint = format!("write {value}`{section}: {{{name}: {{hosts: [\"*.example.com\"]}}}}` for the hosts that it may be");
        fields.say(fields.at, format!("`{name}` chooses a host, and nothing says which hosts it may be"), Some(hint));
    }
}

fn listed(hosts: &[Box<str>]) -> String {
    hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ")
}

fn without<'t>(text: &'t str, suffix: Option<&str>) -> Box<str> {
    let text: &'t str = text.trim();
    let cut = suffix.and_then(|suffix| {
        let at = text.len().checked_sub(suffix.len())?;
        text.get(at..)?.eq_ignore_ascii_case(suffix).then(|| &text[..at])
    });
    cut.unwrap_or(text).into()
}

/// `kind` with `hosts`. A value that the registration gives stands for the hosts where none are listed.
fn kind(fields: &Fields<'_>, word: Option<KindWord>, value: Option<&str>) -> Option<Kind> {
    let mut hosts = Vec::new();
    for (node, text) in fields.texts("hosts").unwrap_or_default() {
        match host_pattern(text) {
            Some(host) => hosts.push(host),
            None => {
                let hint =
                    "write `shop.example.com`, `shop.example.com:8443` where the port is not 443, or `*.example.com` for all sub-domains";
                fields.say(&node.at, format!("expected a host, found {}", node.found()), Some(hint.into()));
            }
        }
    }
    let word = word.unwrap_or(KindWord::Text);
    if matches!(word, KindWord::Text | KindWord::Label) && fields.peek("hosts").is_some() {
        fields.say(fields.at_key("hosts"), "`hosts` goes with `kind: host` or `kind: origin`", None);
        return None;
    }
    let own = |value: &str| {
        let bare = value.trim().trim_start_matches("https://").trim_start_matches("http://");
        let end = bare.find(['/', '?', '#']).unwrap_or(bare.len());
        host_pattern(&bare[..end])
    };
    if hosts.is_empty() {
        hosts.extend(value.and_then(own));
    }
    Some(match word {
        KindWord::Text => Kind::Text,
        KindWord::Label => Kind::Label,
        KindWord::Host => Kind::Host(hosts),
        KindWord::Origin => Kind::Origin(hosts),
    })
}

/// `host` or `*.host`, with its port where that is not 443.
fn host_pattern(text: &str) -> Option<Box<str>> {
    let TokenHost { host, port } = TokenHost::parse(text)?;
    Some(if port == 443 { host } else { format!("{host}:{port}").into() })
}

fn is_name(key: &Key, taken: &[&str], problems: &Problems) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let text = &key.text;
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fine) || !text.as_bytes()[0].is_ascii_alphabetic() {
        problems.say(&key.at, format!("`{}` cannot be the name of a value: letters, digits, `_` and `-`", shown(text)), None);
        return false;
    }
    if RESERVED.iter().chain(taken).any(|name| name == text) {
        problems.say(&key.at, format!("a value cannot be called `{text}`: that name has a meaning of its own"), None);
        return false;
    }
    true
}

/// How the place of a captured value is written.
struct Written<'w> {
    read: &'w dyn Fn(&str) -> Option<From>,
    expected: &'static str,
}

/// `metadata`: what the callback and the token reply leave.
pub(super) fn metadata(fields: &Fields<'_>, reading: Reading) -> Vec<Capture> {
    let from = |text: &str| match text.split_once('.')? {
        ("callback", name) if !name.is_empty() => Some(From::Callback(name.into())),
        ("reply", path) => Path::parse(path).map(From::Reply),
        _ => None,
    };
    captures(fields, reading, &Written { read: &from, expected: "`callback.PARAMETER` or `reply.MEMBER`" })
}

fn captures(fields: &Fields<'_>, reading: Reading, written: &Written<'_>) -> Vec<Capture> {
    let named = fields.pairs("metadata").iter().filter(|(key, _)| is_name(key, &[], fields.problems));
    named.filter_map(|(key, node)| capture(key, node, reading, written, fields.problems)).collect()
}

fn capture(key: &Key, node: &Node, reading: Reading, written: &Written<'_>, problems: &Problems) -> Option<Capture> {
    let place = |node: &Node| {
        let found = (written.read)(scalar::text(node, problems)?);
        if found.is_none() {
            problems.say(&node.at, format!("expected {}, found {}", written.expected, node.found()), None);
        }
        found
    };
    let name = key.text.as_str().into();
    if matches!(node.value, Value::Scalar(_)) {
        return Some(Capture { name, from: place(node)?, kind: Kind::Text, required: false });
    }
    let fields = Fields::open(node, CAPTURE, problems)?;
    let from_node = if reading == Reading::Alone { fields.get("from") } else { fields.need("from") };
    let from = from_node.and_then(place);
    let word = fields.choice("kind", KINDS);
    let kind = if reading == Reading::Alone && word.is_none() { Some(Kind::Text) } else { kind(&fields, word, None) };
    if let (Some(kind), Reading::Whole) = (&kind, reading) {
        needs_hosts(kind, &key.text, "metadata", &fields);
    }
    let required = fields.flag("required").unwrap_or(false);
    fields.finish();
    Some(Capture { name, from: from?, kind: kind?, required })
}

/// The values that lookups learn, read before any text with places.
pub(super) fn lookup_captures(fields: &Fields<'_>, reading: Reading) -> Vec<Vec<Capture>> {
    let from = |text: &str| Path::parse(text).map(From::Reply);
    let one = |node: &Node| {
        let Some(fields) = Fields::open(node, LOOKUP, fields.problems) else { return Vec::new() };
        captures(&fields, reading, &Written { read: &from, expected: "the path of a member, as `data.0.id`" })
    };
    fields.list("lookups").unwrap_or_default().iter().map(one).collect()
}

pub(super) fn lookups(fields: &Fields<'_>, captures: Vec<Vec<Capture>>, places: &Places) -> Vec<Lookup> {
    let nodes = fields.list("lookups").unwrap_or_default();
    nodes.iter().zip(captures).filter_map(|(node, metadata)| lookup(node, metadata, places, fields.problems)).collect()
}

fn lookup(node: &Node, metadata: Vec<Capture>, places: &Places, problems: &Problems) -> Option<Lookup> {
    let fields = Fields::open(node, LOOKUP, problems)?;
    let url = fields.need("url").and_then(|node| places.url(node, problems));
    let scheme = fields.get("attach").and_then(|node| attach::read(node, problems));
    let _read_before = fields.get("metadata");
    if metadata.is_empty() && fields.peek("metadata").is_none() {
        let _told = fields.need("metadata");
    }
    fields.finish();
    Some(Lookup { url: url?, scheme, metadata })
}

/// What the sections declare.
pub(super) fn declared<'v>(inputs: &'v [Input], captures: impl Iterator<Item = &'v Capture>) -> Vec<Declared> {
    let asked = inputs.iter().map(|input| Declared { name: input.name.clone(), kind: input.kind.clone(), fixed: input.value.clone() });
    let learnt = captures.map(|capture| Declared { name: capture.name.clone(), kind: capture.kind.clone(), fixed: None });
    asked.chain(learnt).collect()
}
