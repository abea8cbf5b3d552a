//! `end_user` and `callers`: whose calls these are, and who may make them.

use super::error::did_you_mean;
use super::fields::{Fields, Shape};
use super::node::{Node, Value};
use super::snapshot::ListenerTls;
use super::sources::Sources;
use super::{headers, jwt, scalar};
use crate::identity::{Caller, Callers, EndUserRules, check_name};
use http::header::AUTHORIZATION;

const END_USER: Shape = Shape { name: "EndUser", said: "`end_user`" };
const CALLER: Shape = Shape { name: "Caller", said: "a caller" };

pub(super) fn end_user(root: &Fields<'_>, sources: &Sources<'_>) -> EndUserRules {
    let default = EndUserRules::default();
    let Some(fields) = root.section("end_user", END_USER) else { return default };
    let header = |key| {
        let node = fields.get(key)?;
        let name = headers::name(scalar::text(node, fields.problems)?, node, fields.problems)?;
        let why = if name == AUTHORIZATION { Some("the token stands there") } else { headers::reserved(&name) };
        if let Some(why) = why {
            fields.say(&node.at, format!("`{name}` cannot name the end user: {why}"), None);
        }
        Some(name)
    };
    let name = header("header").unwrap_or(default.header);
    let account = header("account_header").unwrap_or(default.account_header);
    if name == account {
        fields.say(fields.at, format!("`header` and `account_header` are both `{name}`"), None);
    }
    let standing_in = fields.get("default").and_then(|node| {
        let text = scalar::text(node, fields.problems)?;
        if let Err(why) = check_name(text) {
            fields.say(&node.at, format!("this cannot be an end user's name: {why}"), None);
        }
        Some(text.into())
    });
    let placeholder = fields.flag("placeholder").unwrap_or(false);
    let jwt = jwt::read(&fields, sources);
    if standing_in.is_some() && fields.peek("jwt").is_some() {
        fields.say(
            fields.at_key("default"),
            "`default` names an end user without any proof, and `jwt` asks for one: only one of them can be meant",
            None,
        );
    }
    fields.finish();
    let mut rules = EndUserRules::new(name, account, standing_in);
    (rules.placeholder, rules.jwt) = (placeholder, jwt);
    rules
}

/// The callers, and the nodes of the route names in their lists, which are checked when the routes are known.
pub(super) fn callers<'n>(root: &Fields<'n>, providers: &[&str]) -> (Callers, Vec<(&'n Node, &'n str)>) {
    let (mut all, mut route_names): (Vec<Caller>, _) = (Vec::new(), Vec::new());
    for node in root.list("callers").unwrap_or_default() {
        let Some(fields) = Fields::open(node, CALLER, root.problems) else { continue };
        let name = fields.need("name").and_then(|_| fields.word("name")).unwrap_or_default();
        if !name.is_empty() && all.iter().any(|caller| *caller.name == *name) {
            fields.say(fields.at_key("name"), format!("two callers are called `{name}`"), None);
        }
        let key_sha256 = fields.get("key_sha256").and_then(|node| key_hash(node, &fields));
        if let Some(other) = key_sha256.and_then(|key| all.iter().find(|caller| caller.key_sha256 == Some(key))) {
            fields.say(fields.at_key("key_sha256"), format!("the caller `{}` has the same key", other.name), None);
        }
        let uid = fields.get("uid").and_then(|node| {
            let uid = u32::try_from(scalar::number(node, fields.problems)?).ok();
            if uid.is_none() {
                fields.say(&node.at, "a user id has at most 32 bits", None);
            }
            uid
        });
        let cert_sans = fields.get("cert_san").map(|node| cert_sans(node, &fields)).unwrap_or_default();
        if fields.peek("key_sha256").is_none() && fields.peek("uid").is_none() && fields.peek("cert_san").is_none() {
            fields.say(fields.at, "a caller needs `key_sha256`, `uid` or `cert_san`", Some("printf %s \"$KEY\" | sha256sum".into()));
        }
        let routes = fields.texts("routes");
        let provider_list = fields.texts("providers");
        for (node, provider) in provider_list.iter().flatten() {
            if !providers.contains(provider) {
                let message = format!("no provider is called {}", node.found());
                fields.say(&node.at, message, did_you_mean(provider, providers.iter().copied()));
            }
        }
        let names = |list: Option<&Vec<(&Node, &str)>>| list.map(|list| list.iter().map(|(_, name)| Box::from(*name)).collect());
        let (of_routes, of_providers) = (names(routes.as_ref()), names(provider_list.as_ref()));
        let caller = Caller { name: name.into(), key_sha256, uid, cert_sans, routes: of_routes, providers: of_providers };
        route_names.extend(routes.into_iter().flatten());
        fields.finish();
        all.push(caller);
    }
    (Callers(all), route_names)
}

/// Tells callers that nobody could ever be, and certificates that are asked for and mean nothing.
pub(super) fn check_certificates(root: &Fields<'_>, callers: &Callers, tls: &ListenerTls) {
    let asks = [&tls.proxy].into_iter().chain(&tls.origins).flatten().any(|tls| tls.asks_certificate);
    let of_certificates = callers.0.iter().any(|caller| !caller.cert_sans.is_empty());
    if of_certificates && !asks {
        let hint = "write `tls: {cert: …, key: …, client_ca: …}` on `listen.proxy` or an entry of `origins`".to_owned();
        root.say(root.at_key("callers"), "a caller has a `cert_san`, and no listener asks for client certificates", Some(hint));
    }
    if asks && callers.0.is_empty() {
        root.problems.warn("`client_ca` asks callers for certificates, but there are no `callers`: anyone may call without one");
    }
}

/// One name or several; any of them is enough.
fn cert_sans(node: &Node, fields: &Fields<'_>) -> Vec<Box<str>> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes.iter().collect(),
        _ => vec![node],
    };
    if nodes.is_empty() {
        fields.say(&node.at, "`cert_san` names no name", None);
    }
    nodes.into_iter().filter_map(|node| cert_san(node, fields)).collect()
}

/// A DNS name in lower case, or a URI as it is.
fn cert_san(node: &Node, fields: &Fields<'_>) -> Option<Box<str>> {
    let text = scalar::text(node, fields.problems)?;
    let fault = match text {
        "" => "`cert_san` is empty",
        _ if text.contains('*') => "a `cert_san` is matched exactly: no wildcards",
        _ if text.contains("://") => match url::Url::parse(text).is_ok() && text.is_ascii() && !text.contains(char::is_whitespace) {
            true => return Some(text.into()),
            false => "expected a URI such as `spiffe://trust.domain/workload`",
        },
        _ if text.contains('@') => "certificates are known by DNS names and URIs, not by e-mail addresses",
        _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) => {
            return Some(text.to_ascii_lowercase().into());
        }
        _ => "this is neither a DNS name nor a URI",
    };
    fields.say(
        &node.at,
        fault,
        Some("write the subject alternative name as the certificate has it: `openssl x509 -noout -ext subjectAltName`".into()),
    );
    None
}

fn key_hash(node: &Node, fields: &Fields<'_>) -> Option<[u8; 32]> {
    let text = scalar::text(node, fields.problems)?;
    let mut hash = [0; 32];
    let digits = text.as_bytes();
    let fits =
        digits.len() == 64 && hash.iter_mut().zip(digits.chunks(2)).all(|(byte, pair)| hex(pair).map(|found| *byte = found).is_some());
    if !fits {
        // The text is not shown: it may be the key itself.
        fields.say(&node.at, "expected the SHA-256 of the key as 64 hex digits", Some("printf %s \"$KEY\" | sha256sum".into()));
        return None;
    }
    Some(hash)
}

fn hex(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
}
