//! `upstream` of a route: the origin that the operator wrote, and the path and query that may hold captures.

use super::fields::Problems;
use super::node::Node;
use super::scalar;
use crate::upstream::Origin;
use std::sync::Arc;
use url::Url;

/// Where a route goes.
pub(super) struct Target<'n> {
    pub(super) origin: Arc<Origin>,
    /// Begins with `/`, unless it is nothing but a query.
    pub(super) path_and_query: &'n str,
    /// The byte of the scalar's text at which it begins.
    pub(super) offset: usize,
}

/// Reads `upstream`. The host is literal: no part of a request chooses it (THREATS row 8).
pub(super) fn read<'n>(node: &'n Node, allow_plain_http: bool, problems: &Problems) -> Option<Target<'n>> {
    let text = scalar::template(node, problems)?;
    match split(text) {
        Ok((tls, authority, offset)) => {
            let origin = origin(tls, authority, node, problems)?;
            if !tls && !origin.is_loopback() && !allow_plain_http {
                let hint = "write https://, or `allow_plain_http: true` on the route if the network in between is yours".to_owned();
                problems.say(&node.at, format!("plain http:// to `{}`: anyone in between could read the token", origin.host), Some(hint));
                return None;
            }
            Some(Target { origin, path_and_query: &text[offset..], offset })
        }
        Err((offset, message, hint)) => {
            problems.say_inside(node, offset, message, hint.map(Into::into));
            None
        }
    }
}

type Refusal = (usize, String, Option<&'static str>);

/// Scheme, authority, and where path and query begin.
fn split(text: &str) -> Result<(bool, &str, usize), Refusal> {
    let refuse = |offset: usize, message: &str, hint| Err((offset, message.to_owned(), hint));
    if let Some(offset) = text.find(|c: char| c.is_control() || c == '\\') {
        return refuse(offset, "an upstream holds no control characters and no `\\`", None);
    }
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let (tls, start) = match lower.as_str() {
        "https://" => (true, 8),
        _ if lower.starts_with("http://") => (false, 7),
        _ => return refuse(0, "expected an upstream that begins with `https://`", Some("write the whole URL, host included")),
    };
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |end| start + end);
    let authority = &text[start..end];
    if let Some(brace) = authority.find(['{', '}']) {
        return refuse(start + brace, "the upstream's host never comes from the request: captures stand in its path and query only", None);
    }
    if authority.contains('@') {
        return refuse(start, "an upstream has no user or password", Some("`attach` says how the token goes on"));
    }
    if let Some(hash) = text[end..].find('#') {
        return refuse(end + hash, "an upstream has no fragment (`#…`)", Some("write %23 for a literal #"));
    }
    Ok((tls, authority, end))
}

fn origin(tls: bool, authority: &str, node: &Node, problems: &Problems) -> Option<Arc<Origin>> {
    let scheme = if tls { "https" } else { "http" };
    // The URL parser settles spellings (case, IDNA, odd IPv4 forms), so that token hosts are compared with what is dialled.
    let plain = !authority.is_empty() && !authority.contains(char::is_whitespace) && !authority.contains('%');
    let url = Url::parse(&format!("{scheme}://{authority}/")).ok().filter(|_| plain);
    let origin = url.and_then(|url| Origin::new(tls, url.host_str()?, url.port_or_known_default()?).ok());
    if origin.is_none() {
        let message = format!("`{}` is not a host that a URL can name", super::node::shown(authority));
        problems.say_inside(node, 0, message, None);
    }
    origin
}

/// Whether a registration's tokens may go to this origin; told at `node`, the upstream, if not.
pub(super) fn check_token_host(registration: &crate::provider::Registration, origin: &Origin, node: &Node, problems: &Problems) {
    if registration.token_host_allowed(&origin.host, origin.port) {
        return;
    }
    let shown = |host: &str, port: u16| if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
    let target = shown(&origin.host, origin.port);
    let allowed: Vec<String> = registration.token_hosts.iter().map(|host| format!("`{}`", shown(&host.host, host.port))).collect();
    let allowed = if allowed.is_empty() { "it names none".to_owned() } else { format!("they may go to {}", allowed.join(", ")) };
    let message = format!("tokens of `{}` may not be sent to `{target}`: {allowed}", registration.id);
    let near = super::error::nearest(&target, registration.token_hosts.iter().map(|host| &*host.host));
    let hint = match near {
        Some(near) => {
            format!("did you mean `{near}`? Otherwise widen it: `token_hosts: [\"{target}\"]` on the provider `{}`", registration.id)
        }
        None => format!("if that host is meant to see them, add `token_hosts: [\"{target}\"]` to the provider `{}`", registration.id),
    };
    problems.say(&node.at, message, Some(hint));
}
