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

    /// The URL of one connection. `None` where a value is missing, or the whole is no https URL (plain http to loopback alone).
    pub fn url<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<Url> {
        let text = match self {
            EndpointUrl::Fixed(url) => return Some(url.clone()),
            EndpointUrl::PerConnection(text) => text.fill(value)?,
        };
        let url = Url::parse(&text).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let secure = url.scheme() == "https" || (url.scheme() == "http" && crate::base::loopback::is_loopback(&url));
        (plain && secure).then_some(url)
    }
}

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
