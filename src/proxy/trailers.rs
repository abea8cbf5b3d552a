//! Trailers on their way (RFC 9110 §6.5): those pass whose header would. Who reads them may join them with the headers.

use super::View;
use super::headers::{holds_key, hop_by_hop, is_ours, is_twin};
use crate::attach::Place;
use crate::base::problem::PROXY_STATUS;
use crate::config::Snapshot;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, SET_COOKIE, TRAILER};

/// The headers that a credential goes into on any route, and those that a route's `headers` removes or sets. A trailer of such a name passes
/// nowhere: no API reads its callers from trailers, and what a body under way may not say is so the same for all.
pub(super) fn guarded_names(snapshot: &Snapshot) -> Box<[HeaderName]> {
    let mut names: Vec<HeaderName> = Vec::new();
    for route in snapshot.route_list.iter().chain(snapshot.origins.iter().filter_map(|origin| origin.route.as_ref())) {
        match route.attach.place() {
            Place::Header(name) if route.act_as.carries_token() => names.push(name.clone()),
            Place::Header(_) | Place::Query(_) => {}
        }
        names.extend(route.headers.remove.iter().chain(route.headers.set.iter().map(|(name, _)| name)).cloned());
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    names.into()
}

/// The client's trailers without what is not for the upstream; `None` where nothing is left.
pub(super) fn outgoing(trailers: HeaderMap, view: &View) -> Option<HeaderMap> {
    let (rules, callers) = (&view.snapshot.end_user, &view.snapshot.callers);
    kept(trailers, |name, value| {
        hop_by_hop(name)
            || is_ours(name, rules)
            || is_twin(name, Some(&rules.header))
            || is_twin(name, Some(&rules.account_header))
            || [AUTHORIZATION, COOKIE, EXPECT, HOST, CONTENT_LENGTH, TRAILER].contains(name)
            || view.guarded.iter().any(|header| header == name || is_twin(name, Some(header)))
            || (callers.have_keys() && holds_key(value, callers))
    })
}

/// The upstream's trailers without what is not for the client, likewise.
pub(super) fn answered(trailers: HeaderMap) -> Option<HeaderMap> {
    kept(trailers, |name, _| hop_by_hop(name) || [SET_COOKIE, CONTENT_LENGTH, TRAILER, PROXY_STATUS].contains(name))
}

fn kept(trailers: HeaderMap, dropped: impl Fn(&HeaderName, &http::HeaderValue) -> bool) -> Option<HeaderMap> {
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if !dropped(name, value) {
            kept.append(name, value.clone());
        }
    }
    (!kept.is_empty()).then_some(kept)
}
