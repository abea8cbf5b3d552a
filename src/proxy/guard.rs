//! Who may speak to the proxy at all: what `Host`, `Origin` and `Sec-Fetch-Site` say (contract §2), and what a caller's routes allow.
//!
//! A web page can make a browser send requests to localhost, and DNS rebinding lets it read the answers. Neither can forge these headers.

use super::error::ProxyError;
use crate::config::{Guard, Route};
use crate::identity::{Behind, Caller};
use http::header::{HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use std::net::IpAddr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The other end of one client connection, and the listener it came in by.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Unix sockets are exempt from the `Host` rule: no browser reaches them.
    pub unix: bool,
    /// The peer's user id, on a unix socket.
    pub uid: Option<u32>,
    /// The names in the peer's verified certificate, DNS names in lower case; read once a connection.
    pub cert_sans: Vec<Box<str>>,
    /// The address the listener is bound to.
    pub bound: Option<IpAddr>,
    /// The port that it really has.
    pub port: Option<u16>,
    /// What that listener is besides its address.
    pub via: Via,
}

impl Peer {
    /// What the connection says of the caller.
    pub(super) fn behind(&self) -> Behind<'_> {
        Behind { uid: self.uid, cert_sans: &self.cert_sans }
    }
}

/// What a proxy listener says of the calls that come in by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Via {
    /// Its own word on `placeholder`.
    pub placeholder: Option<bool>,
    /// Which of `listen.origins` it is, if it is one.
    pub origin: Option<usize>,
}

/// Refuses what no client app would send, and answers the host that routes are matched with.
pub(super) fn check<'h>(guard: &Guard, peer: &Peer, head: &'h Parts) -> Result<Option<&'h str>, ProxyError> {
    if head.method == Method::CONNECT {
        return Err(ProxyError::ConnectRefused);
    }
    let host = host(head)?;
    // Absolute form is judged by its target, once the routes' upstreams are known: see `absolute`.
    let absolute = head.uri.authority().is_some();
    if !absolute && !peer.unix && !host.is_some_and(|host| host_allowed(guard, peer, host)) {
        // HTTP/1.0 knows no `Host`; a browser always sends one.
        let absent = host.is_none() && head.version == Version::HTTP_10;
        if !absent {
            return Err(ProxyError::CallerRefused("host"));
        }
    }
    from_no_web_page(guard, &head.headers)?;
    Ok(host)
}

/// The request's one host, without its port. With an absolute-form target both must agree (RFC 9112 §3.2.2).
fn host(head: &Parts) -> Result<Option<&str>, ProxyError> {
    let mut lines = head.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(ProxyError::BadRequest("more than one Host header"));
    }
    let line = line.map(|line| line.to_str().map_err(|_| ProxyError::BadRequest("the Host header is not text"))).transpose()?;
    if line.is_some_and(|line| line.contains(['@', '/', ' ', ','])) {
        return Err(ProxyError::BadRequest("the Host header is not a host"));
    }
    match (head.uri.authority(), line) {
        (Some(authority), _) if authority.as_str().contains('@') => Err(ProxyError::BadRequest("the target names a user")),
        (Some(authority), Some(line)) if head.version < Version::HTTP_2 && !agree(authority.as_str(), line, head.uri.scheme_str()) => {
            Err(ProxyError::BadRequest("the target's host and the Host header differ"))
        }
        (_, None) if head.version == Version::HTTP_11 => Err(ProxyError::BadRequest("no Host header")),
        (Some(authority), _) => Ok(Some(authority.host())),
        (None, line) => Ok(line.map(without_port)),
    }
}

/// Whether two authorities are one: the scheme's own port may be said or not (RFC 9110 §4.2.3).
fn agree(authority: &str, line: &str, scheme: Option<&str>) -> bool {
    let own = if scheme == Some("https") { ":443" } else { ":80" };
    let bare = |text: &'_ str| text.len() - text.strip_suffix(own).map_or(0, |_| own.len());
    authority[..bare(authority)].eq_ignore_ascii_case(&line[..bare(line)])
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The last colon of a bare IPv6 literal in brackets stands inside them.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Whether a whole URL is of this listener's own. Another port of the same machine is another server, but for a host that the operator named:
/// that one may be published by any.
pub(super) fn is_own(guard: &Guard, peer: &Peer, host: &str, port: Option<u16>) -> bool {
    let its_port = port.is_none() || peer.port.is_none() || port == peer.port;
    (its_port && host_allowed(guard, peer, host)) || is_named(guard, host)
}

/// Whether a host is this listener's own name.
pub(super) fn host_allowed(guard: &Guard, peer: &Peer, host: &str) -> bool {
    is_loopback_name(host) || is_named(guard, host) || peer.bound.is_some_and(|bound| !bound.is_unspecified() && ip(host) == Some(bound))
}

fn is_named(guard: &Guard, host: &str) -> bool {
    guard.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

fn ip(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// `localhost`, any name under it (RFC 6761 §6.3 keeps them on this machine), and loopback addresses.
fn is_loopback_name(host: &str) -> bool {
    const LOCALHOST: &str = "localhost";
    let Some(start) = host.len().checked_sub(LOCALHOST.len()) else {
        return ip(host).is_some_and(|ip| ip.is_loopback());
    };
    if host.is_char_boundary(start) && host[start..].eq_ignore_ascii_case(LOCALHOST) {
        return start == 0 || host.as_bytes()[start - 1] == b'.';
    }
    ip(host).is_some_and(|ip| ip.is_loopback())
}

/// A browser adds these two by itself and no script can take them away. A same-origin page is one that Attaché served, which on the proxy
/// listener is an upstream's; `none` is a person who typed the address.
fn from_no_web_page(guard: &Guard, headers: &HeaderMap) -> Result<(), ProxyError> {
    for origin in headers.get_all(ORIGIN) {
        let allowed = guard.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        if !allowed {
            return Err(ProxyError::CallerRefused("origin"));
        }
    }
    let origin_known = headers.contains_key(ORIGIN);
    for site in headers.get_all(SEC_FETCH_SITE) {
        // A page of an allowed origin is cross-site by nature; it was judged by its Origin above.
        if !origin_known && !matches!(site.as_bytes(), b"none" | b"same-origin") {
            return Err(ProxyError::CallerRefused("sec-fetch-site"));
        }
    }
    Ok(())
}

/// Whether this caller may use this route, by the caller's own list and the route's.
pub(super) fn may_call(caller: Option<&Caller>, route: &Route) -> Result<(), ProxyError> {
    let refused = ProxyError::CallerRefused("route");
    match (caller, &route.callers) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(refused),
        (Some(caller), narrowed) => {
            let named = narrowed.as_ref().is_none_or(|names| names.contains(&caller.name));
            let provider = route.provider.as_ref().map(|provider| &*provider.id);
            if named && caller.may(&route.name, provider) { Ok(()) } else { Err(refused) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check_host(line: Option<&str>, uri: &str) -> Result<(), ProxyError> {
        let mut request = Request::builder().uri(uri);
        if let Some(line) = line {
            request = request.header("host", line);
        }
        let (head, ()) = request.body(()).expect("valid").into_parts();
        let guard = Guard { hosts: vec!["drive.internal".into()], allowed_origins: Vec::new() };
        let peer = Peer { bound: Some("10.0.0.5".parse().expect("ip")), ..Peer::default() };
        check(&guard, &peer, &head).map(drop)
    }

    #[test]
    fn only_known_hosts_pass() {
        for host in [
            "localhost",
            "localhost:7070",
            "LOCALHOST",
            "drive.localhost:1",
            "127.0.0.1:7070",
            "[::1]:7070",
            "10.0.0.5",
            "Drive.Internal:7070",
        ] {
            assert!(check_host(Some(host), "/").is_ok(), "{host}");
        }
        for host in ["evil.com", "localhost.evil.com", "evillocalhost", "10.0.0.6", "127.0.0.1.evil.com", "localhost@evil.com", "[::2]", ""]
        {
            assert!(check_host(Some(host), "/").is_err(), "{host}");
        }
        assert!(check_host(None, "/").is_err());
        assert!(check_host(Some("localhost"), "http://evil.com/").is_err());
    }

    #[test]
    fn web_pages_are_refused() {
        let check = |name: &str, value: &str| {
            let request = Request::builder().uri("/").header("host", "localhost").header(name, value).body(()).expect("valid");
            let guard = Guard { hosts: Vec::new(), allowed_origins: vec!["http://app.localhost".into()] };
            super::check(&guard, &Peer::default(), &request.into_parts().0).map(drop)
        };
        assert!(check("origin", "http://app.localhost").is_ok());
        assert!(check("sec-fetch-site", "none").is_ok());
        assert!(check("sec-fetch-site", "same-origin").is_ok());
        for (name, value) in
            [("origin", "http://localhost:3000"), ("origin", "null"), ("sec-fetch-site", "same-site"), ("sec-fetch-site", "cross-site")]
        {
            assert!(check(name, value).is_err(), "{name}: {value}");
        }
    }
}
