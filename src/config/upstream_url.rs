//! `upstream` of a route: the origin that the operator wrote, which may hold values of a connection, and the path and query that may hold captures too.

use super::error::did_you_mean;
use super::fields::Problems;
use super::node::Node;
use super::scalar;
use super::snapshot::{ActAs, RouteOrigin};
use crate::provider::{Dialect, Filled, Metadata, OriginTemplate, Registration};
use crate::upstream::Origin;
use std::borrow::Cow;
use std::sync::Arc;

/// Where a route goes.
pub(super) struct Target<'n> {
    pub(super) origin: RouteOrigin,
    /// Begins with `/`, unless it is nothing but a query.
    pub(super) path_and_query: Cow<'n, str>,
    /// The byte of the scalar's text at which it begins.
    pub(super) offset: usize,
}

impl Target<'_> {
    /// Lets what is left of a request's path follow: the upstream is a listener's whole origin.
    pub(super) fn extend(&mut self, node: &Node, problems: &Problems) {
        let (path, query) = self.path_and_query.split_once('?').map_or((&*self.path_and_query, None), |(path, query)| (path, Some(query)));
        if let Some(brace) = path.find("{rest}") {
            problems.say_inside(node, self.offset + brace, "the path of each call follows the upstream by itself", None);
        }
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        self.path_and_query = format!("{}/{{rest}}{query}", path.trim_end_matches('/')).into();
    }
}

/// What an upstream is read against.
pub(super) struct Known<'k> {
    /// The captures of the match, where that is known.
    pub(super) captures: &'k [&'k str],
    /// Whose token goes there; `None` for a route without one.
    pub(super) registration: Option<&'k Registration>,
    pub(super) act_as: ActAs,
    pub(super) allow_plain_http: bool,
}

/// Reads `upstream`. No part of a request chooses its host (THREATS row 8): it is literal, or holds values of the call's connection.
pub(super) fn read<'n>(node: &'n Node, known: &Known<'_>, problems: &Problems) -> Option<Target<'n>> {
    let text = scalar::template(node, problems)?;
    let (tls, start, offset) = match split(text) {
        Ok(parts) => parts,
        Err((offset, message, hint)) => {
            problems.say_inside(node, offset, message, hint.map(Into::into));
            return None;
        }
    };
    let authority = &text[start..offset];
    let origin = if authority.contains(['{', '}']) {
        match per_connection(tls, authority, known) {
            Ok(origin) => origin,
            Err((at, message, hint)) => {
                problems.say_inside(node, start + at, message, hint);
                return None;
            }
        }
    } else {
        RouteOrigin::Fixed(origin(tls, authority, node, problems)?)
    };
    match &origin {
        RouteOrigin::Fixed(origin) if !tls && !origin.is_loopback() && !known.allow_plain_http => {
            let hint = "write https://, or `allow_plain_http: true` on the route if the network in between is yours".to_owned();
            problems.say(&node.at, format!("plain http:// to `{}`: anyone in between could read the token", origin.host), Some(hint));
            None
        }
        _ => Some(Target { origin, path_and_query: Cow::Borrowed(&text[offset..]), offset }),
    }
}

/// A host with places of values. All of them fixed by the registration make a fixed one.
fn per_connection(tls: bool, authority: &str, known: &Known<'_>) -> Result<RouteOrigin, (usize, String, Option<String>)> {
    let refuse = |at: usize, message: String, hint: Option<&str>| Err((at, message, hint.map(str::to_owned)));
    let text = Filled::parse(authority).map_err(|fault| (fault.offset, fault.message.to_owned(), None))?;
    let at = |name: &str| authority.find(&format!("{{{name}}}")).unwrap_or(0);
    let dialect = known.registration.map(|registration| &registration.dialect);
    for name in text.names() {
        let declared = dialect.is_some_and(|dialect| dialect.kinds(name).next().is_some());
        if known.captures.contains(&name) && declared {
            let message = format!("`{{{name}}}` is both a capture of the match and a value of the connection");
            return refuse(at(name), message, Some("give the capture another name"));
        }
        if known.captures.contains(&name) {
            let message = "the upstream's host never comes from the request: captures stand in its path and query only".to_owned();
            return refuse(at(name), message, None);
        }
        let Some(dialect) = dialect.filter(|_| declared) else {
            let names = dialect.map(Dialect::value_names).unwrap_or_default();
            let near = did_you_mean(name, names.iter().map(|(name, _)| *name));
            let hint = near
                .unwrap_or_else(|| "a host holds values of the connection, which the provider's `inputs` or `metadata` declare".to_owned());
            return Err((at(name), format!("the route's provider has no value `{name}` that could stand in a host"), Some(hint)));
        };
        if !dialect.fits_host(name) {
            let message = format!("`{{{name}}}` may be any text, so that it cannot stand in a host");
            return refuse(at(name), message, Some("declare it with `kind: label`, `host` or `origin`"));
        }
        let given = dialect.value_names().iter().any(|(known, given)| *known == name && given.is_some());
        if known.act_as == ActAs::App && !given {
            let message = format!("`{{{name}}}` is an end user's, and the app's own token has none");
            return refuse(at(name), message, Some("give it a value in the registration's `inputs`"));
        }
    }
    if authority.find(':').is_some_and(|colon| authority[colon..].contains('{')) || text.names().next().is_none() {
        return refuse(0, "no place stands in a port, and no brace is literal in a host".to_owned(), None);
    }
    let Some(registration) = known.registration else { return refuse(0, "a host without a connection has no values".to_owned(), None) };
    let template = OriginTemplate { tls, authority: text, written: authority.into(), plain_http_anywhere: known.allow_plain_http };
    let names = registration.dialect.value_names();
    let given = |name: &str| names.iter().find(|(known, _)| *known == name).and_then(|(_, given)| *given);
    let kept: Vec<(&str, Option<Box<str>>)> = template
        .authority
        .names()
        .map(|name| (name, given(name).and_then(|_| registration.dialect.value(&Metadata::new(), name))))
        .collect();
    if kept.iter().all(|(_, value)| value.is_some()) {
        let value = |name: &str| kept.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_deref());
        // Whether tokens may go there is told by the check that all fixed hosts go through.
        let filled = template.authority.fill(|name| value(name).map(Cow::Borrowed));
        let origin = filled.and_then(|authority| crate::provider::origin(tls, &authority));
        return origin.map(RouteOrigin::Fixed).ok_or((0, "the values given make no host that a URL can name".to_owned(), None));
    }
    if !template.is_possible(registration) {
        let message = format!("tokens of `{}` may not be sent to such a host, whatever the values are", registration.id);
        return refuse(0, message, Some("`token_hosts` of the provider says where they may go"));
    }
    Ok(RouteOrigin::PerConnection(Arc::new(template)))
}

type Refusal = (usize, String, Option<&'static str>);

/// Scheme, where the authority begins, and where path and query do.
fn split(text: &str) -> Result<(bool, usize, usize), Refusal> {
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
    if authority.contains('@') {
        return refuse(start, "an upstream has no user or password", Some("`attach` says how the token goes on"));
    }
    if let Some(hash) = text[end..].find('#') {
        return refuse(end + hash, "an upstream has no fragment (`#…`)", Some("write %23 for a literal #"));
    }
    Ok((tls, start, end))
}

fn origin(tls: bool, authority: &str, node: &Node, problems: &Problems) -> Option<Arc<Origin>> {
    let origin = crate::provider::origin(tls, authority);
    if origin.is_none() {
        let message = format!("`{}` is not a host that a URL can name", super::node::shown(authority));
        problems.say_inside(node, 0, message, None);
    }
    origin
}

/// Whether a registration's tokens may go to this origin; told at `node`, the upstream, if not.
pub(super) fn check_token_host(registration: &Registration, origin: &Origin, node: &Node, problems: &Problems) {
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
