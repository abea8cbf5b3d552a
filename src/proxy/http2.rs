//! An HTTP/2 request's head as everything behind it reads one: with a `Host` line (RFC 9113 §8.3.1), and its cookie in one line (§8.2.3).
//!
//! HTTP/1 requests never come here.

use super::error::ProxyError;
use http::header::{COOKIE, HOST, HeaderValue};
use http::request::Parts;

/// # Errors
/// `bad-request` when the authority names a user or differs from a `Host` line, or the path is none.
pub(super) fn normalise(head: &mut Parts) -> Result<(), ProxyError> {
    if let Some(authority) = head.uri.authority() {
        if authority.as_str().contains('@') {
            return Err(ProxyError::BadRequest("the :authority names a user"));
        }
        let mut lines = head.headers.get_all(HOST).iter();
        match (lines.next(), lines.next()) {
            (None, _) => {
                let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ProxyError::BadRequest("the :authority is not a host"))?;
                head.headers.insert(HOST, host);
            }
            (Some(line), None) if line.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {}
            (Some(_), _) => return Err(ProxyError::BadRequest("the :authority and the Host header differ")),
        }
    }
    // That of a CONNECT, which the guard refuses, has none at all.
    if head.uri.path_and_query().is_some_and(|path| !path.as_str().starts_with('/') && path.as_str() != "*") {
        return Err(ProxyError::BadRequest("the :path does not begin with a slash"));
    }
    join_crumbs(head);
    Ok(())
}

fn join_crumbs(head: &mut Parts) {
    let crumbs = head.headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    // What was made of values is one; a cookie that is none is nobody's to send on.
    match HeaderValue::from_bytes(&joined) {
        Ok(joined) => drop(head.headers.insert(COOKIE, joined)),
        Err(_) => drop(head.headers.remove(COOKIE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Version};

    fn check(method: &str, uri: &str, lines: &[(&str, &str)]) -> Result<(String, String, String), ProxyError> {
        let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).expect("valid").into_parts().0;
        normalise(&mut head)?;
        let line = |name| head.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>().join("|");
        Ok((head.uri.to_string(), line(HOST), line(COOKIE)))
    }

    #[test]
    fn the_authority_is_the_host_and_crumbs_are_one_cookie() {
        let good = |uri, lines, expected: (&str, &str, &str)| {
            let found = check("GET", uri, lines).expect("taken");
            assert_eq!((&*found.0, &*found.1, &*found.2), expected);
        };
        good("http://localhost:7070/a%2Fb?x=1", &[], ("http://localhost:7070/a%2Fb?x=1", "localhost:7070", ""));
        good("https://evil.example/", &[], ("https://evil.example/", "evil.example", ""));
        good("http://localhost/", &[("host", "LOCALHOST")], ("http://localhost/", "LOCALHOST", ""));
        good("/", &[("host", "localhost")], ("/", "localhost", ""));
        good("http://localhost/", &[("cookie", "a=b"), ("cookie", "c=d; e=f")], ("http://localhost/", "localhost", "a=b; c=d; e=f"));
        for (uri, lines) in [
            ("http://a@localhost/", &[][..]),
            ("http://localhost/", &[("host", "evil.example")][..]),
            ("http://localhost/", &[("host", "localhost"), ("host", "localhost")][..]),
            ("http://localhost:1/", &[("host", "localhost:2")][..]),
        ] {
            assert!(matches!(check("GET", uri, lines), Err(ProxyError::BadRequest(_))), "{uri} {lines:?}");
        }
    }
}
