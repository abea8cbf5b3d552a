//! Which of the client's headers go upstream, and which of the upstream's go back (contract §4).
//!
//! The upstream's headers are built anew from the client's, so that a replay builds the same ones again. Identity was read before, and
//! attaching comes after: whatever `Connection` names can take neither away (RFC 9110 §7.6.1).

use super::context::{Context, REQUEST_ID, TRACEPARENT};
use super::{Target, View};
use crate::attach::Place;
use crate::base::problem::PROXY_STATUS;
use crate::config::{HostSent, Route};
use crate::identity::{Callers, EndUserRules};
use crate::token::Own;
use crate::upstream::Origin;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VARY, VIA};
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const VIA_US: HeaderValue = HeaderValue::from_static("1.1 attache");

/// The names that `Connection` lines make hop-by-hop.
struct Named<'h>(Vec<&'h str>);

impl<'h> Named<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let lines = headers.get_all(CONNECTION).iter();
        // A line that is no text names nothing that a header could be called.
        let names = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        Named(names.map(str::trim).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("keep-alive")).collect())
    }

    fn has(&self, name: &HeaderName) -> bool {
        !self.0.is_empty() && self.0.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
    }
}

pub(super) fn hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == TE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == HTTP2_SETTINGS
}

/// What the client said to Attaché alone, or may never say to an upstream.
pub(super) fn is_ours(name: &HeaderName, rules: &EndUserRules) -> bool {
    let text = name.as_str();
    *name == rules.header || *name == rules.account_header || text.starts_with("x-attache-") || text.starts_with("proxy-")
}

/// An underscore twin of a header that never passes: servers that turn names into variables read both as one (CGI, WSGI).
pub(super) fn is_twin(name: &HeaderName, attach_header: Option<&HeaderName>) -> bool {
    let text = name.as_str();
    if !text.contains('_') {
        return false;
    }
    let dashed = text.replace('_', "-");
    dashed.starts_with("x-attache-") || dashed.starts_with("proxy-") || attach_header.is_some_and(|header| header.as_str() == dashed)
}

/// Whether a header is a caller's key, or a placeholder with one behind the end user's name.
pub(super) fn holds_key(value: &HeaderValue, callers: &Callers) -> bool {
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return false };
    let text = text.rsplit_once(' ').map_or(text, |(_, last)| last);
    callers.has_key(text) || text.rsplit_once(':').is_some_and(|(_, key)| callers.has_key(key))
}

/// The headers of the upstream's request, all but the credential.
///
/// # Errors
/// When a capture that a configured header holds cannot stand in a header.
pub(super) fn outgoing(
    view: &View,
    cx: &Context,
    client: &HeaderMap,
    target: &Target<'_>,
    origin: &Origin,
) -> Result<HeaderMap, crate::route::TemplateFault> {
    let route: &Route = target.route;
    let rules = &view.snapshot.end_user;
    let named = Named::of(client);
    // Ours to come: Host, Via, the ids and the credential.
    let mut sent = HeaderMap::with_capacity(client.len() + 5);
    let attach_header = match (route.act_as.carries_token(), route.attach.place()) {
        (true, Place::Header(name)) => Some(name),
        _ => None,
    };
    let chunked = client.contains_key(TRANSFER_ENCODING);
    // Where a token goes on, a placeholder stands in its place or nowhere. Elsewhere an SDK may have put one anywhere.
    let may_hold_key = !route.act_as.carries_token() && view.snapshot.callers.have_keys();
    for (name, value) in client {
        let dropped = hop_by_hop(name)
            || is_ours(name, rules)
            || is_twin(name, attach_header)
            || *name == EXPECT
            || *name == http::header::AUTHORIZATION
            || Some(name) == attach_header
            || (may_hold_key && holds_key(value, &view.snapshot.callers))
            || (*name == COOKIE && !route.cookies_pass)
            || (*name == HOST && !matches!(route.host, HostSent::Preserve))
            // The length of a body that comes in chunks is not the client's to say (RFC 9112 §6.3).
            || (*name == CONTENT_LENGTH && chunked)
            || (named.has(name) && *name != HOST && *name != CONTENT_LENGTH);
        if dropped {
            continue;
        }
        match *name == CONTENT_LENGTH {
            // Equal ones may come twice; they go on as one (RFC 9112 §6.3).
            true => drop(sent.insert(name, value.clone())),
            false => drop(sent.append(name, value.clone())),
        }
    }
    if wants_trailers(client) {
        sent.insert(TE, HeaderValue::from_static("trailers"));
    }
    match &route.host {
        HostSent::Upstream => drop(sent.insert(HOST, origin.host_header.clone())),
        HostSent::Name(host) => drop(sent.insert(HOST, host.clone())),
        HostSent::Preserve => {}
    }
    sent.append(VIA, VIA_US);
    sent.insert(REQUEST_ID, cx.request_id.clone());
    if let Some(begun) = &cx.traceparent {
        sent.insert(TRACEPARENT, begun.clone());
    }
    if let Some(own) = target.own {
        accompany(&mut sent, own, rules);
    }
    edit(&mut sent, target)?;
    Ok(sent)
}

/// What the provider puts on every call that carries its token. The route's own edits come after it, and the credential after those.
fn accompany(sent: &mut HeaderMap, own: &Own, rules: &EndUserRules) {
    let allowed = |name: &HeaderName| !hop_by_hop(name) && !is_ours(name, rules) && *name != HOST && *name != CONTENT_LENGTH;
    for (name, value) in own.set_headers.iter().filter(|(name, _)| allowed(name)) {
        sent.insert(name, value.clone());
    }
    for (name, value) in own.headers.iter().filter(|(name, _)| allowed(name)) {
        if !sent.contains_key(name) {
            sent.insert(name, value.clone());
        }
    }
}

/// The route's own `headers:`.
fn edit(sent: &mut HeaderMap, target: &Target<'_>) -> Result<(), crate::route::TemplateFault> {
    let edits = &target.route.headers;
    for name in &edits.remove {
        sent.remove(name);
    }
    for (name, template) in &edits.set {
        sent.insert(name, template.header_value(&target.captures)?);
    }
    for (name, template) in &edits.add {
        sent.append(name, template.header_value(&target.captures)?);
    }
    Ok(())
}

/// `application/json`, or another kind that says it is JSON (RFC 6839 §3.1). Some APIs name it as JavaScript.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.ends_with("/json") || kind.ends_with("+json") || matches!(kind.as_str(), "text/javascript" | "application/javascript")
}

/// `TE: trailers` is the one value a proxy may say for itself, since ours can carry them (RFC 9110 §10.1.4).
fn wants_trailers(client: &HeaderMap) -> bool {
    client
        .get_all(TE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// Makes the upstream's answer the client's: hop-by-hop headers and cookies go, `Vary` and the request id come.
pub(super) fn answer(headers: &mut HeaderMap, view: &View, cx: &Context, route: &Route) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = Named::of(headers).0.iter().filter_map(|name| name.parse().ok()).collect();
        for name in named {
            if name != CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    // With a coding the length is not the upstream's to say, and a proxy must not pass it on (RFC 9112 §6.3): it would cut the body short.
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &UPGRADE, &TE] {
        headers.remove(name);
    }
    if !route.cookies_pass {
        headers.remove(SET_COOKIE);
    }
    if headers.contains_key(PROXY_STATUS) {
        keep_proxy_status_ours(headers);
    }
    headers.append(VARY, view.vary.clone());
    headers.insert(REQUEST_ID, cx.request_id.clone());
}

/// Takes away every `Proxy-Status` line that speaks of `attache`, so that a client can trust that member to be our own (contract §5). A line
/// is judged whole: an upstream that writes our name has no claim to its other members.
fn keep_proxy_status_ours(headers: &mut HeaderMap) {
    let kept: Vec<HeaderValue> = headers
        .get_all(PROXY_STATUS)
        .iter()
        .filter(|line| !line.as_bytes().to_ascii_lowercase().windows(7).any(|part| part == b"attache"))
        .cloned()
        .collect();
    headers.remove(PROXY_STATUS);
    for line in kept {
        headers.append(PROXY_STATUS, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn every_connection_line_counts() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("X-One , close"));
        headers.append(CONNECTION, HeaderValue::from_static("X-Two"));
        let named = Named::of(&headers);
        for name in ["x-one", "x-two", "close"] {
            assert!(named.has(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!named.has(&HeaderName::from_static("x-three")));
    }

    #[test]
    fn an_upstream_cannot_speak_as_attache() {
        let mut headers = HeaderMap::new();
        for line in ["edge; error=dns_timeout", "attache; error=http_request_denied", "edge, Attache"] {
            headers.append(PROXY_STATUS, HeaderValue::from_static(line));
        }
        keep_proxy_status_ours(&mut headers);
        assert_eq!(headers.get_all(PROXY_STATUS).iter().collect::<Vec<_>>(), ["edge; error=dns_timeout"]);
    }

    #[test]
    fn twins_of_what_never_passes_are_known() {
        let key = HeaderName::from_static("x-api-key");
        for twin in ["x_attache_key", "x-attache_key", "proxy_authorization", "x_api_key", "x_api-key"] {
            assert!(is_twin(&HeaderName::from_static(twin), Some(&key)), "{twin}");
        }
        for other in ["x-api-key", "x_api_keys", "snake_case"] {
            assert!(!is_twin(&HeaderName::from_static(other), Some(&key)), "{other}");
        }
    }

    #[test]
    fn trailers_are_asked_for_only_when_the_client_did() {
        assert!(wants_trailers(&map(&[("te", "gzip, Trailers")])));
        assert!(!wants_trailers(&map(&[("te", "gzip")])));
        assert!(!wants_trailers(&map(&[])));
    }
}
