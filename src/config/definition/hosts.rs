//! `token_hosts`: where tokens may be sent, and where they never go.

use super::places::Places;
use crate::config::fields::Fields;
use crate::config::node::Node;
use crate::config::scalar;
use crate::provider::{Filled, TokenHost};

#[derive(Debug, Clone, Default)]
pub(in crate::config) struct TokenHosts {
    pub(in crate::config) allowed: Vec<TokenHost>,
    pub(in crate::config) per_connection: Vec<Filled>,
    pub(in crate::config) denied: Vec<TokenHost>,
}

pub(super) fn read(fields: &Fields<'_>, places: &Places) -> TokenHosts {
    let mut hosts = TokenHosts::default();
    for node in fields.list("token_hosts").unwrap_or_default() {
        let Some(text) = scalar::template(node, fields.problems) else { continue };
        if let Some(denied) = text.strip_prefix('!') {
            one(denied, node, fields, &mut hosts.denied);
        } else if text.contains(['{', '}']) {
            with_places(node, places, fields, &mut hosts);
        } else {
            one(text, node, fields, &mut hosts.allowed);
        }
    }
    hosts
}

fn one(text: &str, node: &Node, fields: &Fields<'_>, into: &mut Vec<TokenHost>) {
    match TokenHost::parse(text) {
        Some(host) if into.contains(&host) => {}
        Some(host) => into.push(host),
        None => {
            let hint = "write `api.example.com`, `localhost:7080` where the port is not 443, `*.example.com` for all sub-domains, or `!api.example.com` for never";
            fields.say(&node.at, format!("expected a host that tokens may be sent to, found {}", node.found()), Some(hint.into()));
        }
    }
}

fn with_places(node: &Node, places: &Places, fields: &Fields<'_>, hosts: &mut TokenHosts) {
    let Some(text) = places.host_text(node, fields.problems) else { return };
    match text.fixed() {
        Some(fixed) => one(fixed, node, fields, &mut hosts.allowed),
        None if hosts.per_connection.contains(&text) => {}
        None => hosts.per_connection.push(text),
    }
}
