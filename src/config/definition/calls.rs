//! `calls`: how each kind of call looks on the wire.

use super::overlay;
use super::places::{OF_AUTHORIZE, OF_REVOKE, OF_TOKEN, Places};
use super::{CLIENT_AUTH, lint};
use crate::config::error::did_you_mean;
use crate::config::fields::{Fields, Problems, Shape};
use crate::config::node::{Node, shown};
use crate::config::scalar;
use crate::provider::{BodyFormat, CallShape, Calls};
use http::Method;

const CALLS: Shape = Shape { name: "Calls", said: "`calls`" };
const CALL: Shape = Shape { name: "Call", said: "a call" };

const METHODS: &[(&str, usize)] = &[("GET", 0), ("POST", 1), ("PUT", 2), ("PATCH", 3), ("DELETE", 4)];

/// Every parameter that the RFCs name, and that can so be renamed or left out.
const STANDARD: &[&str] = &[
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "resource",
    "audience",
    "request_uri",
    "grant_type",
    "code",
    "refresh_token",
    "device_code",
    "assertion",
    "client_assertion",
    "client_assertion_type",
    "token",
    "token_type_hint",
];

pub(super) fn read(fields: &Fields<'_>, places: &Places) -> Calls {
    let Some(fields) = fields.section("calls", CALLS) else { return Calls::default() };
    let problems = fields.problems;
    let token = fields.get("token");
    if let Some(url) = token.and_then(|token| overlay::under(token, "url")) {
        problems.say(&url.at, "`calls.token` has no `url`: that is `token_url`", None);
    }
    // Read by itself too: its faults are told even if no call of those it lies under is there.
    let token_shape = token.and_then(|node| shape(node, OF_TOKEN, places, problems)).unwrap_or_default();
    let on_token = |node: Option<&Node>| match (node, token) {
        (Some(node), Some(token)) => shape(&overlay::join(node, token), OF_TOKEN, places, problems),
        (Some(node), None) => shape(node, OF_TOKEN, places, problems),
        (None, _) => None,
    };
    let token_call = |key| on_token(fields.get(key)).unwrap_or_else(|| token_shape.clone());
    let other = |key, standard| fields.get(key).and_then(|node| shape(node, standard, places, problems)).unwrap_or_default();
    let calls = Calls {
        authorize: other("authorize", OF_AUTHORIZE),
        code: token_call("code"),
        refresh: token_call("refresh"),
        app: token_call("app"),
        extend: on_token(fields.get("extend")),
        device: token_call("device"),
        poll: token_call("poll"),
        revoke: other("revoke", OF_REVOKE),
    };
    fields.finish();
    calls
}

fn shape(node: &Node, standard: &[&str], places: &Places, problems: &Problems) -> Option<CallShape> {
    let fields = Fields::open(node, CALL, problems)?;
    let shape = CallShape {
        url: fields.get("url").and_then(|node| places.url(node, problems)),
        method: fields.choice("method", METHODS).map(|index| {
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].into_iter().nth(index).unwrap_or(Method::POST)
        }),
        body: fields
            .choice("body", &[("form", BodyFormat::Form), ("json", BodyFormat::Json), ("none", BodyFormat::None)])
            .unwrap_or_default(),
        client_auth: fields.choice("client_auth", CLIENT_AUTH),
        rename: renamed(&fields),
        omit: omitted(&fields),
        params: places.params(&fields, "params", standard),
        headers: places.headers(&fields, "headers", standard),
        fragment: fields.word("fragment").map(Box::from),
    };
    lint::forbidden_grants(&fields, "params");
    fields.finish();
    Some(shape)
}

fn renamed(fields: &Fields<'_>) -> Vec<(Box<str>, Box<str>)> {
    let mut all: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (key, node) in fields.pairs("rename") {
        is_standard(&key.text, &key.at, fields);
        let Some(theirs) = scalar::text(node, fields.problems) else { continue };
        if theirs.is_empty() {
            fields.say(&node.at, "a parameter's name is empty", Some("`omit` leaves one out".into()));
        }
        all.push((key.text.as_str().into(), theirs.into()));
    }
    all
}

fn omitted(fields: &Fields<'_>) -> Vec<Box<str>> {
    let names = fields.texts("omit").unwrap_or_default();
    names.into_iter().inspect(|(node, name)| is_standard(name, &node.at, fields)).map(|(_, name)| name.into()).collect()
}

fn is_standard(name: &str, at: &crate::config::error::At, fields: &Fields<'_>) {
    if !STANDARD.contains(&name) {
        let hint = did_you_mean(name, STANDARD.iter().copied()).unwrap_or_else(|| "`params` adds others".to_owned());
        fields.say(at, format!("`{}` is no standard parameter of a call", shown(name)), Some(hint));
    }
}
