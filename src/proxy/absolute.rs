//! Requests in absolute form (RFC 9112 §3.2.2), as clients send them to a forward proxy: the target's authority says which route takes them.
//!
//! An upstream's URL is taken by the route whose upstream it falls under, and goes out by that route's own origin: the request only names what
//! the operator wrote. A URL of this listener's own is a path on it. HTTP/2 requests have an authority always, and come by here too.

use super::error::ProxyError;
use super::guard::{self, Peer};
use super::{Target, resolve};
use crate::config::{Route, Snapshot};
use crate::route::{Fallen, Site, Upstreams, path};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, Uri, Version};
use std::sync::Arc;

/// Decides between registrations of one upstream.
const PROVIDER: HeaderName = HeaderName::from_static("x-attache-provider");

/// The route of a request whose target has an authority. The guard has seen that it agrees with `Host` and names no user.
pub(super) fn resolve<'c>(
    snapshot: &'c Snapshot,
    peer: &Peer,
    head: &'c Parts,
    authority: &'c Authority,
) -> Result<Target<'c>, ProxyError> {
    let upstreams = upstreams(snapshot, peer.via.origin).ok_or(ProxyError::NoRoute)?;
    if let Some(site) = site(&head.uri)?
        && upstreams.has(&site)
    {
        return find(upstreams, &head.method, &site, &head.uri, wanted(&head.headers)?);
    }
    let (guard, host) = (snapshot.guard_of(peer.via.origin), authority.host());
    let http2 = head.version >= Version::HTTP_2;
    let is_own = match http2 {
        // What the `Host` line is to HTTP/1.1: no port is looked at, and unix sockets are exempt.
        true => peer.unix || guard::host_allowed(guard, peer, host),
        false => guard::is_own(guard, peer, host, authority.port_u16()),
    };
    if is_own {
        return resolve::resolve(snapshot, peer.via.origin, &head.method, Some(host), &head.uri);
    }
    Err(if http2 { ProxyError::CallerRefused("host") } else { none(upstreams, host) })
}

/// The upstreams that requests by this one of `listen.origins`, or by the proxy listener, may name.
fn upstreams(snapshot: &Snapshot, origin: Option<usize>) -> Option<&Upstreams<Arc<Route>>> {
    match origin {
        None => Some(&snapshot.upstreams),
        Some(number) => snapshot.origins.get(number).map(|origin| &origin.upstreams),
    }
}

/// Scheme and authority of a URL; `None` where it has no scheme.
pub(super) fn site(uri: &Uri) -> Result<Option<Site<'_>>, ProxyError> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Ok(None) };
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(ProxyError::BadRequest("the target's scheme is neither http nor https")),
    };
    if authority.as_str().contains('@') {
        return Err(ProxyError::BadRequest("the target names a user"));
    }
    let port = match authority.as_str().get(authority.host().len()..) {
        None | Some("" | ":") => None,
        // What does not fit in a port is none, and must not be taken for the scheme's own.
        Some(_) => Some(authority.port_u16().ok_or(ProxyError::BadRequest("the target's port is none"))?),
    };
    Ok(Some(Site { tls, host: authority.host(), port }))
}

/// The route whose upstream the URL falls under.
pub(super) fn find<'c>(
    upstreams: &'c Upstreams<Arc<Route>>,
    method: &Method,
    site: &Site<'_>,
    uri: &'c Uri,
    wanted: Option<&str>,
) -> Result<Target<'c>, ProxyError> {
    path::check(uri.path()).map_err(|fault| ProxyError::BadPath(fault.reason()))?;
    match upstreams.find(method, site, uri.path(), wanted) {
        Fallen::Under { value, captures } => Ok(Target { route: value, captures, query: uri.query(), absolute: true, own: None }),
        Fallen::MethodNotAllowed { allow } => Err(ProxyError::MethodNotAllowed { allow }),
        Fallen::None => Err(none(upstreams, site.host)),
        Fallen::OfOthers(routes) => {
            Err(undecided("`X-Attache-Provider` names no provider whose routes take this URL; these routes do", &routes))
        }
        Fallen::Several(routes) if has_one_owner(&routes) => {
            Err(undecided("this URL falls under several routes of one provider: call one of them by its own path", &routes))
        }
        Fallen::Several(routes) => {
            Err(undecided("this URL falls under several routes: name the provider of one in `X-Attache-Provider`", &routes))
        }
    }
}

pub(super) fn none(upstreams: &Upstreams<Arc<Route>>, host: &str) -> ProxyError {
    ProxyError::NoUpstream { near: upstreams.nearest_host(host).map(str::to_owned) }
}

fn wanted(headers: &HeaderMap) -> Result<Option<&str>, ProxyError> {
    let mut lines = headers.get_all(PROVIDER).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(ProxyError::BadRequest("more than one X-Attache-Provider header"));
    }
    line.to_str().map(|text| Some(text.trim())).map_err(|_| ProxyError::BadRequest("the X-Attache-Provider header is not text"))
}

fn has_one_owner(routes: &[&Arc<Route>]) -> bool {
    let owner = |route: &Arc<Route>| route.provider.as_ref().map(|provider| Arc::clone(&provider.id));
    routes.windows(2).all(|pair| owner(pair[0]) == owner(pair[1]))
}

fn undecided(why: &'static str, routes: &[&Arc<Route>]) -> ProxyError {
    let one = |route: &&Arc<Route>| match &route.provider {
        Some(provider) => format!("`{}` (provider `{}`)", route.name, provider.id),
        None => format!("`{}` (no provider)", route.name),
    };
    let mut choices: Vec<String> = routes.iter().map(one).collect();
    choices.sort();
    ProxyError::Undecided { why, choices: choices.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn http_2_has_an_authority_always_and_it_is_read_the_same_way() {
        let yaml = "listen: {proxy: {bind: '127.0.0.1:7070', hosts: [attache.internal]}}\nproviders:\n  google: {client_id: a}\nroutes:\n  - {match: '/google/{*rest}', provider: google, upstream: 'https://www.googleapis.com/{rest}'}\n";
        let snapshot =
            config::load_str(yaml, Path::new("routes.yaml"), Path::new("/"), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let peer = Peer { bound: "127.0.0.1".parse().ok(), port: Some(7070), ..Peer::default() };
        let unix = Peer { unix: true, ..Peer::default() };
        let judge = |version: Version, peer: &Peer, url: &str| {
            let request = http::Request::builder().version(version).uri(url).body(()).expect("a request");
            let (head, ()) = request.into_parts();
            let authority = head.uri.authority().cloned().expect("an authority");
            match resolve(&snapshot, peer, &head, &authority) {
                Ok(target) => {
                    format!("{} {}", if target.absolute { "absolute" } else { "path" }, target.captures.get("rest").unwrap_or("?"))
                }
                Err(error) => error.row().0.to_owned(),
            }
        };
        for (url, one, two, two_by_unix) in [
            ("http://www.googleapis.com/drive/x", "absolute drive/x", "absolute drive/x", "absolute drive/x"),
            ("https://www.googleapis.com/drive/x", "absolute drive/x", "absolute drive/x", "absolute drive/x"),
            ("http://localhost:7070/google/x", "path x", "path x", "path x"),
            ("http://attache.internal:8080/google/x", "path x", "path x", "path x"),
            // The port of a `Host` is not looked at; that of another server's URL is.
            ("http://localhost:8080/google/x", "no-route", "path x", "path x"),
            ("http://evil.example/google/x", "no-route", "caller-refused", "path x"),
        ] {
            assert_eq!(judge(Version::HTTP_11, &peer, url), one, "{url}");
            assert_eq!(judge(Version::HTTP_2, &peer, url), two, "{url}");
            assert_eq!(judge(Version::HTTP_2, &unix, url), two_by_unix, "{url}");
        }
        assert_eq!(judge(Version::HTTP_11, &unix, "http://evil.example/google/x"), "no-route");
    }
}
