//! An endpoint's URL, fixed or with places in its host or path that a connection's own values fill in (`https://{subdomain}.zendesk.com/oauth/tokens`).
//!
//! What may come to stand there is checked twice: each value by its [`Kind`](super::Kind) when it is learnt, and the whole URL here.

use super::text::Filled;
use std::borrow::Cow;
use url::Url;

/// Where a call goes.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointUrl {
    Fixed(Url),
    /// The text is the whole URL. Places stand in the host, the path or the query, never across the `://`.
    PerConnection(Filled),
}

impl EndpointUrl {
    /// The URL where it is the same for all connections.
    pub fn fixed(&self) -> Option<&Url> {
        match self {
            EndpointUrl::Fixed(url) => Some(url),
            EndpointUrl::PerConnection(_) => None,
        }
    }

    /// Whether a connection's values have a part in the host.
    pub fn chooses_host(&self) -> bool {
        let with = |value: &'static str| self.url(|_| Some(value.into())).and_then(|url| url.host_str().map(str::to_owned));
        self.fixed().is_none() && with("localhost") != with("127.0.0.1")
    }

    /// Whether the host is written and is this one.
    pub(super) fn is_at(&self, host: &str) -> bool {
        !self.chooses_host() && self.url(|_| Some("x".into())).is_some_and(|url| url.host_str() == Some(host))
    }

    /// The URL of one connection. `None` where a value is missing, or the whole is no https URL (plain http to loopback alone).
    pub fn url<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<Url> {
        let text = match self {
            EndpointUrl::Fixed(url) => return Some(url.clone()),
            EndpointUrl::PerConnection(text) => text.fill(|name| in_url(value(name)?))?,
        };
        let url = Url::parse(&text).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let secure = url.scheme() == "https" || (url.scheme() == "http" && crate::base::loopback::is_loopback(&url));
        (plain && secure).then_some(url)
    }
}

/// A value as it may stand in a URL's host, path or query: no byte of it ends the part that it stands in. `None` for `.` and `..`, which would move
/// the path. A host and its port stay as they are.
pub fn in_url(value: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if matches!(&*value, "" | "." | "..") {
        return None;
    }
    Some(match percent_encoding::utf8_percent_encode(&value, UNRESERVED).into() {
        Cow::Borrowed(_) => value,
        Cow::Owned(escaped) => Cow::Owned(escaped),
    })
}

/// RFC 3986 §2.3's unreserved characters stay, and the colon before a port.
const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

impl std::str::FromStr for EndpointUrl {
    type Err = url::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(EndpointUrl::Fixed(text.parse()?))
    }
}

impl From<Url> for EndpointUrl {
    fn from(url: Url) -> Self {
        EndpointUrl::Fixed(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, tenant: &str, expected: Option<&str>) {
        let url = EndpointUrl::PerConnection(Filled::parse(text).expect(text));
        let found = url.url(|name| (name == "tenant").then(|| tenant.to_owned().into()));
        assert_eq!(found.as_ref().map(Url::as_str), expected, "{text} {tenant}");
    }

    #[test]
    fn a_value_chooses_the_host_where_it_stands_in_it() {
        for (text, expected) in [
            ("https://{tenant}.example.com/token", true),
            ("https://{tenant}/token", true),
            ("https://example.com/{tenant}", false),
            ("https://example.com/?{tenant}", false),
        ] {
            let url = EndpointUrl::PerConnection(Filled::parse(text).expect(text));
            assert_eq!((url.chooses_host(), url.is_at("example.com")), (expected, !expected), "{text}");
        }
        assert!(!EndpointUrl::from(Url::parse("https://example.com/").expect("a URL")).chooses_host());
    }

    #[test]
    fn no_value_leaves_the_part_of_the_url_that_it_stands_in() {
        check("https://{tenant}.example.com/token", "acme", Some("https://acme.example.com/token"));
        check("https://{tenant}/token", "a.example.com:8443", Some("https://a.example.com:8443/token"));
        check("https://login.example.com/{tenant}/token", "a/../b?c=d#e", Some("https://login.example.com/a%2F..%2Fb%3Fc%3Dd%23e/token"));
        check("https://login.example.com/{tenant}/token", "..", None);
        check("https://login.example.com/{other}/token", "a", None);
        check("http://{tenant}/token", "a.example.com", None);
        check("http://{tenant}/token", "127.0.0.1:1", Some("http://127.0.0.1:1/token"));
    }
}
