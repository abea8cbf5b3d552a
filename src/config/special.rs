//! `send`, `follow` and `response` of a route.

use super::fields::{Fields, Problems, Shape, pairs};
use super::headers::{self, HeaderRules};
use super::node::{Kind, Node, Value, shown};
use super::scalar;
use super::snapshot::{BodySource, HeaderSource, ResponseAs, SendAs, Special};
use crate::route::{FormTemplate, JsonTemplate, Names, Selector, Template};
use http::{HeaderName, Method};
use std::sync::Arc;

const SEND: Shape = Shape { name: "Send", said: "`send`" };
const JSON_HEADER: Shape = Shape { name: "JsonHeader", said: "a header of `send`" };
const RESPONSE: Shape = Shape { name: "Response", said: "`response`" };

/// The longest answer that is read for `response`, unless `max` says otherwise, and at most: it is held in memory, several times over.
const RESPONSE_DEFAULT: u64 = 1 << 20;
const RESPONSE_MAX: u64 = 64 << 20;

/// Reads the three; `None` where the route has none of them. Without `captures`, which are not known, only the keys are.
pub(super) fn read(route: &Fields<'_>, names: Option<Names<'_>>, rules: HeaderRules<'_>) -> Option<Arc<Special>> {
    let follow = route.choice("follow", &[("no", false), ("no_token", true)]).unwrap_or(false);
    let response = response(route, follow);
    let send = match names {
        Some(names) => send(route, names, rules),
        None => {
            let _known = route.get("send");
            None
        }
    };
    let has_any = send.is_some() || follow || response.is_some();
    has_any.then(|| Arc::new(Special { send, follow, response }))
}

fn send(route: &Fields<'_>, names: Names<'_>, rules: HeaderRules<'_>) -> Option<SendAs> {
    let fields = route.section("send", SEND)?;
    let problems = fields.problems;
    let method = method(&fields);
    let mut sent = Vec::new();
    for (key, node) in fields.pairs("headers") {
        let Ok(name) = HeaderName::from_bytes(key.text.as_bytes()) else {
            fields.say(&key.at, format!("`{}` cannot be the name of a header", shown(&key.text)), None);
            continue;
        };
        if let Some(why) = headers::reserved_on_route(&name, rules) {
            fields.say(&key.at, format!("`send` cannot set `{name}`: {why}"), None);
            continue;
        }
        sent.extend(header(node, names, problems).map(|source| (name, source)));
    }
    let (json_node, form_node) = (fields.get("json"), fields.get("form"));
    if json_node.is_some() && form_node.is_some() {
        fields.say(fields.at_key("form"), "`send` has one body: `json` or `form`", None);
    }
    let body = match (json_node, form_node) {
        (Some(node), _) => json(node, names, problems).map(BodySource::Json),
        (None, Some(node)) => form(node, names, problems).map(BodySource::Form),
        (None, None) => None,
    };
    fields.finish();
    Some(SendAs { method: method?, headers: sent, body })
}

fn method(fields: &Fields<'_>) -> Option<Method> {
    let Some(node) = fields.get("method") else { return Some(Method::POST) };
    let text = scalar::text(node, fields.problems)?;
    // HEAD and CONNECT have no answer to pass on, and TRACE would show the token.
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_name && !["CONNECT", "TRACE", "HEAD"].contains(&text));
    if method.is_none() {
        fields.say(&node.at, format!("expected a method such as `POST`, found {}", node.found()), None);
    }
    method
}

/// A text, or `{json: …}` for an API that wants JSON in a header.
fn header(node: &Node, names: Names<'_>, problems: &Problems) -> Option<HeaderSource> {
    if matches!(node.value, Value::Map(_)) {
        let fields = Fields::open(node, JSON_HEADER, problems)?;
        let value = fields.need("json").and_then(|node| json(node, names, problems));
        fields.finish();
        return value.map(HeaderSource::Json);
    }
    let text = scalar::template(node, problems)?;
    match Template::parse(text, names) {
        Ok(template) => Some(HeaderSource::Text(template)),
        Err(error) => {
            problems.say_inside(node, error.offset, error.message, error.hint);
            None
        }
    }
}

/// The YAML value as JSON, its texts as templates. Every fault is told, not the first only.
fn json(node: &Node, names: Names<'_>, problems: &Problems) -> Option<JsonTemplate> {
    match &node.value {
        Value::Null => Some(JsonTemplate::fixed(&serde_json::Value::Null)),
        Value::Broken => None,
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| json(item, names, problems)).collect();
            items.into_iter().collect::<Option<_>>().map(JsonTemplate::List)
        }
        Value::Map(members) => {
            let members: Vec<_> = members.iter().map(|(key, value)| Some((key.text.clone(), json(value, names, problems)?))).collect();
            members.into_iter().collect::<Option<Vec<_>>>().map(JsonTemplate::map)
        }
        Value::Scalar(scalar) => match scalar.kind {
            Kind::Bool => Some(JsonTemplate::fixed(&scalar.text.eq_ignore_ascii_case("true").into())),
            Kind::Number => {
                let number = number(&scalar.text);
                if number.is_none() {
                    let hint = "in quotes it is a text".to_owned();
                    problems.say(&node.at, format!("{} is no number that JSON can hold", node.found()), Some(hint));
                }
                number.map(|number| JsonTemplate::fixed(&number.into()))
            }
            Kind::Text => match JsonTemplate::text(scalar.as_template(), names) {
                Ok(text) => Some(text),
                Err(error) => {
                    problems.say_inside(node, error.offset, error.message, error.hint);
                    None
                }
            },
        },
    }
}

fn number(text: &str) -> Option<serde_json::Number> {
    let whole = text.parse::<i64>().map(Into::into).or_else(|_| text.parse::<u64>().map(Into::into)).ok();
    whole.or_else(|| serde_json::Number::from_f64(text.parse().ok()?))
}

fn form(node: &Node, names: Names<'_>, problems: &Problems) -> Option<FormTemplate> {
    let before = problems.count();
    let mut all = Vec::new();
    for (key, node) in pairs(node, "a mapping of names to values", problems) {
        let Some(text) = scalar::template(node, problems) else { continue };
        let pair = (key.text.clone(), text.to_owned());
        if let Err(error) = FormTemplate::parse(std::slice::from_ref(&pair), names) {
            problems.say_inside(node, error.offset, error.message, error.hint);
        }
        all.push(pair);
    }
    FormTemplate::parse(&all, names).ok().filter(|_| problems.count() == before)
}

fn response(route: &Fields<'_>, follow: bool) -> Option<ResponseAs> {
    let fields = route.section("response", RESPONSE)?;
    let (select, location) = (fields.get("select"), fields.get("location"));
    let bytes_max = fields.size("max").unwrap_or(RESPONSE_DEFAULT);
    if bytes_max > RESPONSE_MAX {
        fields.say(fields.at_key("max"), "`response.max` is held in memory for each call: at most 64MiB", None);
    }
    let is_location = location.is_some();
    let node = match (select, location) {
        (Some(node), None) => Some(node),
        (None, Some(node)) => {
            if !follow {
                let hint = "write `follow: no_token` on the route".to_owned();
                fields.say(fields.at_key("location"), "`location` names what is fetched instead, so the route must follow", Some(hint));
            }
            Some(node)
        }
        _ => {
            fields.say(
                fields.at,
                "`response` needs `select`, which makes the answer, or `location`, which says where it is: one of them",
                None,
            );
            None
        }
    };
    let selector = node.and_then(|node| match Selector::parse(scalar::text(node, fields.problems)?) {
        Ok(selector) => Some(selector),
        Err(error) => {
            fields.problems.say_inside(node, error.offset, error.message, error.hint);
            None
        }
    });
    fields.finish();
    Some(ResponseAs { selector: selector?, is_location, bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) })
}
