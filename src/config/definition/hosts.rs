//! `token_hosts`: where tokens may be sent, and where they never go.

use super::places::Places;
use crate::config::fields::Fields;
use crate::config::node::{Node, Value};
use crate::config::scalar;
use crate::provider::{DeniedHost, Filled, Lookup, TokenHost};

#[derive(Debug, Clone, Default)]
pub(in crate::config) struct TokenHosts {
    pub(in crate::config) allowed: Vec<TokenHost>,
    pub(in crate::config) per_connection: Vec<Filled>,
    pub(in crate::config) denied: Vec<DeniedHost>,
}

impl TokenHosts {
    fn allow(&self, host: &str, port: u16) -> bool {
        self.allowed.iter().any(|allowed| allowed.takes(host, port)) && !self.denied.iter().any(|denied| denied.takes(host, port))
    }
}

pub(super) fn read(fields: &Fields<'_>, places: &Places) -> TokenHosts {
    let mut hosts = TokenHosts::default();
    for node in fields.list("token_hosts").unwrap_or_default() {
        let Some(text) = scalar::template(node, fields.problems) else { continue };
        if let Some(denied) = text.strip_prefix('!') {
            one(DeniedHost::parse(denied), node, fields, &mut hosts.denied);
        } else if text.contains(['{', '}']) {
            with_places(node, places, fields, &mut hosts);
        } else {
            one(TokenHost::parse(text), node, fields, &mut hosts.allowed);
        }
    }
    hosts
}

/// Tells each lookup that carries its token to a fixed host where no token may go. What values make of the others is asked before the call.
pub(super) fn check_lookups(lookups: &[Lookup], hosts: &TokenHosts, fields: &Fields<'_>) {
    let at = fields.at_key("lookups");
    // One that learns nothing has its fault told already.
    for url in lookups.iter().filter(|lookup| !lookup.metadata.is_empty()).filter_map(|lookup| lookup.url.fixed()) {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { continue };
        if !hosts.allow(host, port) {
            let target = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
            let message = "a lookup carries its token to a host that is not among `token_hosts`";
            // What a variable held is not shown.
            let is_shown = !nodes(fields).any(Node::is_filled);
            let hint = is_shown.then(|| format!("add `token_hosts: [\"{target}\"]`"));
            fields.say(at, message, hint);
        }
    }
}

fn nodes<'f>(fields: &'f Fields<'_>) -> impl Iterator<Item = &'f Node> {
    let lookups = fields.peek("lookups").map(|node| list(&node.value)).unwrap_or_default();
    lookups.iter().filter_map(|lookup| super::overlay::under(lookup, "url"))
}

fn list(value: &Value) -> &[Node] {
    match value {
        Value::List(nodes) => nodes,
        Value::Null | Value::Scalar(_) | Value::Map(_) | Value::Broken => &[],
    }
}

fn one<T: PartialEq>(found: Option<T>, node: &Node, fields: &Fields<'_>, into: &mut Vec<T>) {
    match found {
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
        Some(fixed) => one(TokenHost::parse(fixed), node, fields, &mut hosts.allowed),
        None if hosts.per_connection.contains(&text) => {}
        None => hosts.per_connection.push(text),
    }
}
