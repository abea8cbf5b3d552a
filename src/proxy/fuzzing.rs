//! What the fuzz targets may call of this room, which is not public otherwise. Built under `cfg(fuzzing)`, and with the tests, so that a change that breaks a target is seen at once.

use super::context::{Context, Ids};
use super::{Target, View, absolute, guard, headers, resolve};
use crate::attach::{Around, Place, Prepared};
use crate::base::clock::UnixMillis;
use crate::base::credential::Credential;
use crate::config::{Route, RouteOrigin, Snapshot};
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request};
use std::sync::Arc;

/// The upstream's request that a call becomes.
pub struct Sent {
    pub route: Arc<Route>,
    /// `host` or `host:port` of where it goes.
    pub authority: String,
    pub path_and_query: String,
    pub headers: HeaderMap,
}

/// From a request's head to the upstream's, in the order of `Proxy::run` and `forward::build`, with `token` in place of the keeper's.
/// `None` where Attaché refuses it.
pub fn outgoing(snapshot: &Arc<Snapshot>, head: &Parts, token: &str) -> Option<Sent> {
    let view = View::new(Arc::clone(snapshot));
    let cx = Context::open(&Ids::new(), &Request::from_parts(head.clone(), ()), snapshot.log.calls, None);
    let host = guard::check(&snapshot.guard, &super::Peer::default(), head).ok()?;
    let target = match head.uri.authority() {
        Some(authority) => absolute::resolve(snapshot, &super::Peer::default(), head, authority).ok()?,
        None => resolve::resolve(snapshot, None, &head.method, host, &head.uri).ok()?,
    };
    snapshot.end_user.read(&head.headers).ok()?;
    sent(&view, &cx, head, &target, token)
}

fn sent(view: &View, cx: &Context, head: &Parts, target: &Target<'_>, token: &str) -> Option<Sent> {
    let route = target.route;
    let RouteOrigin::Fixed(origin) = &route.origin else { return None };
    let attach_query = match route.attach.place() {
        Place::Query(name) => Some(name),
        Place::Header(_) => None,
    };
    let mut text = String::new();
    route.rewrite.apply(&target.captures, target.query, attach_query, &mut text);
    let mut request = Request::new(());
    *request.uri_mut() = PathAndQuery::from_maybe_shared(Bytes::from(text)).ok()?.into();
    *request.headers_mut() = headers::outgoing(view, cx, &head.headers, target, origin).ok()?;
    let (mut head, ()) = request.into_parts();
    let around = || Around { now: UnixMillis(0), tls: origin.tls, private: true, server: origin.id.0, form: None };
    route.attach.attach(&Credential::bearer(token), &Prepared::new(), &mut head, around).ok()?;
    Some(Sent {
        route: Arc::clone(route),
        authority: origin.authority.to_string(),
        path_and_query: head.uri.path_and_query()?.as_str().to_owned(),
        headers: head.headers,
    })
}
