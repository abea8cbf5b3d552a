//! Values of one connection that may choose a host, a path or a header: what connecting asks for, and what a provider's answers leave.
//!
//! A value is checked when it is learnt, by its [`Kind`], before it is stored under its name in the connection's metadata. Only the kinds that
//! are one label, a listed host or a listed origin may stand in a host, so that nobody's answer sends a secret or a token to a stranger.

use super::dialect::Path;
use super::endpoint::EndpointUrl;
use crate::attach::Scheme;
use url::Url;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Any text of up to 512 bytes without control bytes; never part of a host.
    Text,
    /// One DNS label.
    Label,
    /// A host under one of these: `example.com` itself, or `*.example.com` for its sub-domains; at another port than 443 only where it is named.
    Host(Vec<Box<str>>),
    /// An https origin under one of these, learnt as a URL; what is kept is its host, and its port where that is not 443.
    Origin(Vec<Box<str>>),
}

/// What the end user types on the connect page, or the operator in the registration, or the app in the session's metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub name: Box<str>,
    pub label: Box<str>,
    pub example: Option<Box<str>>,
    pub kind: Kind,
    /// Given by the registration: nobody is asked.
    pub value: Option<Box<str>>,
    /// Cut off what is typed (`.zendesk.com`), so that a pasted address does too.
    pub suffix: Option<Box<str>>,
}

/// One value that an answer leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    pub name: Box<str>,
    pub from: From,
    pub kind: Kind,
    /// Without it there is no connection.
    pub required: bool,
}

/// Where a captured value stands.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// A parameter of the callback.
    Callback(Box<str>),
    /// A member of the token reply.
    Reply(Path),
}

/// A call right after connecting that learns values.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    pub url: EndpointUrl,
    /// How the token goes on, where it is not as on other calls.
    pub scheme: Option<Scheme>,
    /// Of the answer: `From::Reply` paths.
    pub metadata: Vec<Capture>,
}

impl Kind {
    /// Whether a value of this kind may stand in a URL's host.
    pub fn fits_host(&self) -> bool {
        !matches!(self, Kind::Text)
    }

    /// The value as it is kept, or `None` where it is not of this kind.
    pub fn check(&self, value: &str) -> Option<Box<str>> {
        let value = value.trim();
        match self {
            Kind::Text => {
                let fits = !value.is_empty() && value.len() <= 512 && !value.chars().any(char::is_control);
                fits.then(|| value.into())
            }
            Kind::Label => is_label(value).then(|| value.to_ascii_lowercase().into()),
            Kind::Host(allowed) => host(value).and_then(|(host, port)| listed(&host, port, allowed)),
            Kind::Origin(allowed) => {
                let url = Url::parse(value).ok()?;
                let loopback = url.scheme() == "http" && crate::base::loopback::is_loopback(&url);
                if (url.scheme() != "https" && !loopback) || !url.username().is_empty() || url.password().is_some() {
                    return None;
                }
                let host = url.host_str()?;
                let kept = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
                is_under(host, url.port_or_known_default()?, allowed).then(|| kept.into())
            }
        }
    }
}

/// As it is kept: with its port where that is not 443.
fn listed(host: &str, port: u16, allowed: &[Box<str>]) -> Option<Box<str>> {
    let kept = if port == 443 { host.into() } else { format!("{host}:{port}").into() };
    is_under(host, port, allowed).then_some(kept)
}

fn is_label(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fine) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS name, or one with a port; no address but loopback's, so that no answer names a machine of the private network.
fn host(text: &str) -> Option<(String, u16)> {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let port = match port {
        None => 443,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        Some(_) => return None,
    };
    let labels: Vec<&str> = name.split('.').collect();
    let is_name = labels.len() >= 2
        && labels.iter().all(|label| is_label(label))
        && labels.last().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()));
    (is_name || matches!(name, "localhost" | "127.0.0.1")).then(|| (name.to_ascii_lowercase(), port))
}

/// Another port is another server, which the list must name; on this machine whoever lists it means its servers at whatever port they have.
fn is_under(host: &str, port: u16, allowed: &[Box<str>]) -> bool {
    let host = host.to_ascii_lowercase();
    allowed.iter().any(|pattern| {
        let named = pattern.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
        let (name, at) = named.unwrap_or((pattern, 443));
        let fits = match name.strip_prefix("*.") {
            Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => host == name,
        };
        fits && (at == port || (named.is_none() && matches!(name, "localhost" | "127.0.0.1" | "[::1]")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &Kind, value: &str, expected: Option<&str>) {
        assert_eq!(kind.check(value).as_deref(), expected, "{kind:?} {value}");
    }

    #[test]
    fn a_label_is_one_and_a_host_stands_in_the_list() {
        for (value, expected) in [
            ("Acme", Some("acme")),
            (" a-1 ", Some("a-1")),
            ("a.b", None),
            ("", None),
            ("-a", None),
            ("a/b", None),
            ("a@b", None),
            ("é", None),
        ] {
            check(&Kind::Label, value, expected);
        }
        let hosts = Kind::Host(vec!["*.myshopify.com".into(), "shop.example".into(), "ported.example:8443".into()]);
        for (value, expected) in [
            ("a.myshopify.com", Some("a.myshopify.com")),
            ("A.B.MyShopify.com", Some("a.b.myshopify.com")),
            ("shop.example", Some("shop.example")),
            ("myshopify.com", None),
            (".myshopify.com", None),
            ("evilmyshopify.com", None),
            ("a.myshopify.com.evil.net", None),
            ("a.myshopify.com/", None),
            ("evil.net#a.myshopify.com", None),
            ("evil.net?.myshopify.com", None),
            ("a.myshopify.com@evil.net", None),
            ("a.myshopify.com:8443", None),
            ("a.myshopify.com:443", Some("a.myshopify.com")),
            ("shop.example:8443", None),
            ("ported.example:8443", Some("ported.example:8443")),
            ("ported.example", None),
            ("a.myshopify.com:x", None),
            ("169.254.169.254", None),
        ] {
            check(&hosts, value, expected);
        }
    }

    #[test]
    fn an_origin_is_https_and_in_the_list() {
        let kind = Kind::Origin(vec!["*.salesforce.com".into(), "*.force.com:8443".into()]);
        for (value, expected) in [
            ("https://na1.salesforce.com", Some("na1.salesforce.com")),
            ("https://na1.salesforce.com/services/", Some("na1.salesforce.com")),
            ("https://na1.salesforce.com:8443", None),
            ("https://na1.force.com:8443", Some("na1.force.com:8443")),
            ("https://na1.salesforce.com:443", Some("na1.salesforce.com")),
            ("http://na1.salesforce.com", None),
            ("https://na1.salesforce.com@evil.net", None),
            ("https://u:p@na1.salesforce.com", None),
            ("https://evil.net/na1.salesforce.com", None),
            ("na1.salesforce.com", None),
            ("https://10.0.0.1", None),
        ] {
            check(&kind, value, expected);
        }
    }
}
