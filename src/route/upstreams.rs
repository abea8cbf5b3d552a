//! Which route takes a URL of an upstream's own, as clients of a forward proxy send it (contract §3, "Absolute form").
//!
//! A route stands here for everything under a literal prefix of its upstream. So a URL that falls under it is forwarded byte for byte: what
//! follows the prefix is its last capture, and prefix and capture put together are the path that was asked for.

use super::pattern::{CAPTURES_MAX, Captures};
use super::template::nearest;
use http::Method;
use std::collections::HashMap;

/// Routes by the upstreams that they stand for, each with its value.
#[derive(Debug)]
pub struct Upstreams<T> {
    /// Of each host its claims, the longest prefix first.
    hosts: HashMap<Box<str>, Vec<Claim<T>>>,
}

/// One route's claim: everything under `prefix` on one origin.
#[derive(Debug, Clone)]
pub struct Claim<T> {
    pub tls: bool,
    /// Lower case, an IPv6 literal in its brackets.
    pub host: Box<str>,
    pub port: u16,
    /// Begins and ends with `/`.
    pub prefix: Box<str>,
    /// The name of the capture that holds what follows the prefix.
    pub rest: [Box<str>; 1],
    /// Empty: any method.
    pub methods: Vec<Method>,
    /// Whose tokens the route carries. Claims of one owner are told apart by methods; those of several never are.
    pub owner: Option<Box<str>>,
    pub value: T,
}

/// Scheme and authority of a URL.
#[derive(Debug, Clone, Copy)]
pub struct Site<'u> {
    pub tls: bool,
    pub host: &'u str,
    /// `None` where the URL says none.
    pub port: Option<u16>,
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Fallen<'t, 'p, T> {
    Under {
        value: &'t T,
        captures: Captures<'p>,
    },
    /// Several claims are as long, and nothing in the request decides.
    Several(Vec<&'t T>),
    /// Claims take it, but none of the owner that was asked for.
    OfOthers(Vec<&'t T>),
    /// Claims take the path, but with other methods: these, sorted. `HEAD` stands beside `GET`.
    MethodNotAllowed {
        allow: Vec<Method>,
    },
    None,
}

impl<T> Default for Upstreams<T> {
    fn default() -> Self {
        Upstreams { hosts: HashMap::new() }
    }
}

impl<T> FromIterator<Claim<T>> for Upstreams<T> {
    fn from_iter<I: IntoIterator<Item = Claim<T>>>(claims: I) -> Self {
        let mut hosts: HashMap<Box<str>, Vec<Claim<T>>> = HashMap::new();
        for claim in claims {
            hosts.entry(claim.host.clone()).or_default().push(claim);
        }
        for claims in hosts.values_mut() {
            claims.sort_by_key(|claim| std::cmp::Reverse(claim.prefix.len()));
        }
        Upstreams { hosts }
    }
}

impl<T> Claim<T> {
    /// A client that can say no `https://` to its proxy says `http://` instead, and its port with it. Never the other way round: who asks for
    /// TLS gets it.
    fn is_at(&self, site: &Site<'_>) -> bool {
        match (site.tls, self.tls) {
            (true, false) => false,
            (true, true) => site.port.unwrap_or(443) == self.port,
            (false, true) if self.port == 443 => matches!(site.port, None | Some(80 | 443)),
            (false, _) => site.port.unwrap_or(80) == self.port,
        }
    }

    /// How well the method fits: a named one before any (RFC 9110 §9.3.2 lets GET stand for HEAD).
    fn rank(&self, method: &Method) -> Option<u8> {
        match &self.methods[..] {
            [] => Some(2),
            named if named.contains(method) => Some(0),
            named if *method == Method::HEAD && named.contains(&Method::GET) => Some(1),
            _ => None,
        }
    }
}

impl<T> Upstreams<T> {
    /// Whether some route's upstream is at this scheme, host and port.
    pub fn has(&self, site: &Site<'_>) -> bool {
        self.at(site).next().is_some()
    }

    /// The route of a request. `path` is the raw path of its URL and has passed [`super::path::check`]; `owner` is whose route it asks for.
    pub fn find<'t: 'p, 'p>(&'t self, method: &Method, site: &Site<'_>, path: &'p str, owner: Option<&str>) -> Fallen<'t, 'p, T> {
        let over = || self.at(site).filter(|claim| path.starts_with(&*claim.prefix));
        let taking = || over().filter_map(|claim| Some((claim.rank(method)?, claim)));
        let wanted = || taking().filter(|(_, claim)| owner.is_none_or(|owner| claim.owner.as_deref() == Some(owner)));
        let Some((_, longest)) = wanted().next() else {
            let others: Vec<_> = taking().map(|(_, claim)| &claim.value).collect();
            let allow = allowed(over());
            return match (others.is_empty(), allow.is_empty()) {
                (false, _) => Fallen::OfOthers(others),
                (true, false) => Fallen::MethodNotAllowed { allow },
                (true, true) => Fallen::None,
            };
        };
        let mut tied: Vec<_> = wanted().filter(|(_, claim)| claim.prefix == longest.prefix).collect();
        if tied.iter().all(|(_, claim)| claim.owner == longest.owner) {
            let best = tied.iter().map(|(rank, _)| *rank).min();
            tied.retain(|(rank, _)| Some(*rank) == best);
        }
        match &tied[..] {
            [(_, claim)] => {
                let mut values = [""; CAPTURES_MAX];
                values[0] = &path[claim.prefix.len()..];
                Fallen::Under { value: &claim.value, captures: Captures::new(&claim.rest, values) }
            }
            _ => Fallen::Several(tied.into_iter().map(|(_, claim)| &claim.value).collect()),
        }
    }

    /// The host most like this one, if one is.
    pub fn nearest_host(&self, host: &str) -> Option<&str> {
        nearest(&host.to_ascii_lowercase(), self.hosts.keys().map(AsRef::as_ref))
    }

    fn at<'t>(&'t self, site: &Site<'_>) -> impl Iterator<Item = &'t Claim<T>> {
        // The dot of a fully qualified name names the same host (RFC 1034 §3.1).
        let host = site.host.strip_suffix('.').unwrap_or(site.host).to_ascii_lowercase();
        let site = Site { host: "", ..*site };
        self.hosts.get(&*host).into_iter().flatten().filter(move |claim| claim.is_at(&site))
    }
}

fn allowed<'t, T: 't>(claims: impl Iterator<Item = &'t Claim<T>>) -> Vec<Method> {
    let mut allow: Vec<Method> = claims.flat_map(|claim| claim.methods.iter().cloned()).collect();
    if allow.contains(&Method::GET) {
        allow.push(Method::HEAD);
    }
    allow.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    allow.dedup();
    allow
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(origin: &str, prefix: &str, methods: &[Method], owner: &str, value: &'static str) -> Claim<&'static str> {
        let (scheme, rest) = origin.split_once("://").expect("an origin");
        let (host, port) = rest.rsplit_once(':').expect("a port");
        Claim {
            tls: scheme == "https",
            host: host.into(),
            port: port.parse().expect("a port"),
            prefix: prefix.into(),
            rest: ["rest".into()],
            methods: methods.to_vec(),
            owner: (!owner.is_empty()).then(|| owner.into()),
            value,
        }
    }

    fn told(found: Fallen<'_, '_, &str>) -> String {
        match found {
            Fallen::Under { value, captures } => format!("{value}:{}", captures.get("rest").expect("the rest")),
            Fallen::Several(values) => format!("several {values:?}"),
            Fallen::OfOthers(values) => format!("others {values:?}"),
            Fallen::MethodNotAllowed { allow } => format!("405 {allow:?}"),
            Fallen::None => "none".to_owned(),
        }
    }

    fn find(upstreams: &Upstreams<&'static str>, method: &str, url: &str, owner: Option<&str>) -> String {
        let uri: http::Uri = url.parse().expect(url);
        let site = Site { tls: uri.scheme_str() == Some("https"), host: uri.host().expect("a host"), port: uri.port_u16() };
        told(upstreams.find(&method.parse().expect("a method"), &site, uri.path(), owner))
    }

    #[test]
    fn the_longest_upstream_takes_a_url_by_any_port_that_means_it() {
        let upstreams: Upstreams<_> = [
            claim("https://up.example:443", "/", &[], "a", "all"),
            claim("https://up.example:443", "/drive/", &[Method::GET], "a", "drive"),
            claim("https://up.example:8443", "/", &[], "a", "other"),
            claim("http://plain.example:80", "/v1/", &[], "a", "plain"),
            claim("https://[::1]:443", "/", &[], "a", "six"),
        ]
        .into_iter()
        .collect();
        for (method, url, expected) in [
            ("GET", "http://up.example/drive/x%2Fy", "drive:x%2Fy"),
            ("HEAD", "http://UP.Example:80/drive/", "drive:"),
            ("GET", "http://up.example.:443/drive", "all:drive"),
            ("POST", "https://up.example/drive/x", "all:drive/x"),
            ("GET", "https://up.example:443/Drive/x", "all:Drive/x"),
            ("GET", "https://up.example:80/", "none"),
            ("GET", "http://up.example:8443//", "other:/"),
            ("GET", "https://up.example:8443/", "other:"),
            ("GET", "http://plain.example/v1/a", "plain:a"),
            ("GET", "http://plain.example:443/v1/a", "none"),
            ("GET", "https://plain.example/v1/a", "none"),
            ("GET", "https://plain.example:80/v1/a", "none"),
            ("GET", "http://plain.example/v1", "none"),
            ("GET", "http://[::1]/x", "six:x"),
            ("GET", "http://up.example.evil/", "none"),
        ] {
            assert_eq!(find(&upstreams, method, url, None), expected, "{method} {url}");
        }
        assert_eq!(upstreams.nearest_host("WWW.up.example"), Some("up.example"));
        assert_eq!(upstreams.nearest_host("x.y"), None);
    }

    #[test]
    fn a_tie_is_the_owners_to_decide_and_methods_within_one_owner() {
        let upstreams: Upstreams<_> = [
            claim("https://up.example:443", "/a/", &[Method::GET], "one", "one-get"),
            claim("https://up.example:443", "/a/", &[], "one", "one-any"),
            claim("https://up.example:443", "/a/", &[], "two", "two"),
            claim("https://up.example:443", "/", &[Method::PUT], "two", "two-put"),
            claim("https://up.example:443", "/", &[Method::PUT], "three", "three-put"),
            claim("https://up.example:443", "/", &[Method::PUT], "three", "three-too"),
        ]
        .into_iter()
        .collect();
        for (method, path, owner, expected) in [
            ("GET", "/a/x", Some("one"), "one-get:x"),
            ("POST", "/a/x", Some("one"), "one-any:x"),
            ("GET", "/a/x", Some("two"), "two:x"),
            ("GET", "/a/x", None, r#"several ["one-get", "one-any", "two"]"#),
            ("PUT", "/b", Some("two"), "two-put:b"),
            ("PUT", "/a/x", Some("three"), r#"several ["three-put", "three-too"]"#),
            ("GET", "/a/x", Some("three"), r#"others ["one-get", "one-any", "two"]"#),
            ("GET", "/b", Some("two"), "405 [PUT]"),
        ] {
            assert_eq!(find(&upstreams, method, &format!("http://up.example{path}"), owner), expected, "{method} {path} {owner:?}");
        }
    }
}
