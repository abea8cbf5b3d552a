//! `rewrite_location`: where an answer names a URL of the route's own, the client is told the route's path (contract §3).
//!
//! The path alone: whatever host the client called Attaché by is the right one. What lies outside of the route passes as it is. To a client that
//! speaks of upstreams by their own URLs (absolute form) nothing is changed.

use super::forward::Call;
use crate::attach::Place;
use crate::config::{Route, RouteOrigin};
use crate::route::{Reverse, path, rewrite::without};
use crate::upstream::Origin;
use http::HeaderValue;
use http::header::{CONTENT_LOCATION, Entry, LOCATION};
use http::response::Parts;
use url::Url;

/// Rewrites `Location` and `Content-Location`, whatever the status: some APIs tell of an upload session by a 200.
pub(super) fn rewrite(call: &Call<'_>, head: &mut Parts) {
    let route = call.target.route;
    let Some(reverse) = route.reverse.as_deref().filter(|_| !call.target.absolute) else { return };
    let RouteOrigin::Fixed(origin) = &route.origin else { return };
    let mut base = None;
    for name in [LOCATION, CONTENT_LOCATION] {
        let Entry::Occupied(mut lines) = head.headers.entry(name) else { continue };
        for line in lines.iter_mut() {
            let Some(base) = base.get_or_insert_with(|| asked_url(call, origin)) else { return };
            if let Some(path) = line.to_str().ok().and_then(|text| {
                within(text, &Asked { url: base, origin, query: call.target.query, token: attach_parameter(route) }, reverse)
            }) && let Ok(value) = HeaderValue::try_from(path)
            {
                *line = value;
            }
        }
    }
}

/// What was asked for.
struct Asked<'a> {
    /// As the upstream was, but for the token's parameter: references are relative to it (RFC 9110 §10.2.2).
    url: &'a Url,
    origin: &'a Origin,
    /// The client's own: what the route adds to it is not the client's to know, and added again.
    query: Option<&'a str>,
    /// The parameter that the token stands in.
    token: Option<&'a str>,
}

fn asked_url(call: &Call<'_>, origin: &Origin) -> Option<Url> {
    let target = call.target;
    let mut url = format!("{}://{}", origin.scheme(), origin.authority);
    target.route.rewrite.apply(&target.captures, target.query, attach_parameter(target.route), &mut url);
    Url::parse(&url).ok()
}

fn attach_parameter(route: &Route) -> Option<&str> {
    match route.attach.place() {
        Place::Query(name) if route.act_as.carries_token() => Some(name),
        _ => None,
    }
}

/// The reference as one to the route's own path; `None` where it leads elsewhere. An upstream that repeats the token's parameter must not show
/// it to the client.
fn within(reference: &str, asked: &Asked<'_>, reverse: &Reverse) -> Option<String> {
    let &Asked { origin, token, .. } = asked;
    let url = asked.url.join(reference).ok()?;
    let same = url.scheme() == origin.scheme().as_str()
        && url.host_str() == Some(&*origin.host)
        && url.port_or_known_default() == Some(origin.port)
        && url.username().is_empty()
        && url.password().is_none();
    if !same || path::check(url.path()).is_err() {
        return None;
    }
    let mut found = reverse.path(url.path())?;
    // Two slashes would begin a host (RFC 3986 §4.2): a dot segment before them, which goes when the reference is resolved, keeps them a path.
    if found.starts_with("//") {
        found.insert_str(0, "/.");
    }
    // Of query and fragment the bytes as they came, unless they are none that a URL may hold.
    let (before, fragment) = reference.split_once('#').map_or((reference, None), |(before, fragment)| (before, Some(fragment)));
    let as_is = reference.bytes().all(|byte| byte.is_ascii_graphic());
    let query = match before.split_once('?') {
        Some((_, query)) if as_is => Some(query),
        // The same document (RFC 3986 §4.4).
        None if before.trim().is_empty() => asked.query,
        _ => url.query(),
    };
    if let Some(query) = query {
        let query = token.map_or_else(|| query.into(), |token| without(query, token));
        if !query.is_empty() {
            found.push('?');
            found.push_str(&query);
        }
    }
    if let Some(fragment) = if as_is { fragment } else { url.fragment() } {
        found.push('#');
        found.push_str(fragment);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Pattern, Rewrite};

    #[test]
    fn what_stays_in_the_route_becomes_its_path_and_nothing_else_does() {
        let pattern = Pattern::parse("/google/{*rest}").expect("a match");
        let rewrite = Rewrite::parse("/v1/{rest}", &[], &[], &["rest"]).expect("an upstream");
        let reverse = Reverse::new(&pattern, &rewrite).expect("a way back");
        let origin = Origin::new(true, "up.example", 443).expect("an origin");
        let base = Url::parse("https://up.example/v1/a/b?key=1&set=hidden").expect("a URL");
        let asked = Asked { url: &base, origin: &origin, query: Some("key=1&token=x"), token: Some("token") };
        for (reference, expected) in [
            ("https://up.example/v1/drive/x?y=1#f", Some("/google/drive/x?y=1#f")),
            ("HTTPS://Up.Example:443/v1/x%2Fy?a=%7E'b&&c", Some("/google/x%2Fy?a=%7E'b&&c")),
            ("//up.example/v1/x", Some("/google/x")),
            ("/v1/x?", Some("/google/x")),
            ("c?d", Some("/google/a/c?d")),
            ("../c", Some("/google/c")),
            ("?d=1", Some("/google/a/b?d=1")),
            ("#f", Some("/google/a/b?key=1#f")),
            ("", Some("/google/a/b?key=1")),
            ("/v1/a b?c d#e f", Some("/google/a%20b?c%20d#e%20f")),
            ("/v1/x?token=secret&y=1&%74oken=secret", Some("/google/x?y=1")),
            ("/v1/x?token=secret", Some("/google/x")),
            ("/v1//evil.example/x", Some("/google//evil.example/x")),
            ("https://up.example/v2/x", None),
            ("https://up.example/v1", None),
            ("https://up.example/v1/../v2/x", None),
            ("https://up.example/v1/%2e%2e/v2/x", None),
            ("/v1/a%2F..%2Fb", None),
            ("../../c", None),
            ("http://up.example/v1/x", None),
            ("https://up.example:8443/v1/x", None),
            ("https://up.example.evil/v1/x", None),
            ("https://u@up.example/v1/x", None),
            ("//evil.example/v1/x", None),
            ("mailto:a@b", None),
            ("https://", None),
        ] {
            assert_eq!(within(reference, &asked, &reverse).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn a_path_of_two_slashes_never_becomes_a_host() {
        let pattern = Pattern::parse("/{*rest}").expect("a match");
        let rewrite = Rewrite::parse("/{rest}", &[], &[], &["rest"]).expect("an upstream");
        let reverse = Reverse::new(&pattern, &rewrite).expect("a way back");
        let origin = Origin::new(true, "up.example", 443).expect("an origin");
        let base = Url::parse("https://up.example/a").expect("a URL");
        let asked = Asked { url: &base, origin: &origin, query: None, token: None };
        let found = within("https://up.example//evil.example/x", &asked, &reverse).expect("within");
        let client = Url::parse("http://localhost:7070/a").expect("a URL").join(&found).expect("a URL");
        assert_eq!(client.as_str(), "http://localhost:7070//evil.example/x");
    }
}
