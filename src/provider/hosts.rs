//! Where tokens may be sent: a host and port, or all sub-domains of a host.

use url::Url;

/// A host (lower case) and port; a leading `*.` takes exactly the host's sub-domains, at any depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHost {
    pub host: Box<str>,
    pub port: u16,
}

impl TokenHost {
    /// Reads `host`, `host:port` or `*.host`; the port is 443 where it is not named.
    pub fn parse(text: &str) -> Option<TokenHost> {
        let (stars, rest) = match text.strip_prefix("*.") {
            // A wildcard over a whole top level would be no limit at all.
            Some(rest) if rest.split(':').next()?.contains('.') => ("*.", rest),
            Some(_) => return None,
            None => ("", text),
        };
        if rest.is_empty() || rest.contains(['/', '@', '*', '?', '#', '\\', '%', '{', '}', '!']) || rest.contains(char::is_whitespace) {
            return None;
        }
        let url = Url::parse(&format!("https://{rest}/")).ok()?;
        Some(TokenHost { host: format!("{stars}{}", url.host_str()?).into(), port: url.port_or_known_default()? })
    }

    /// Whether `host` (lower case, no brackets removed) and `port` are taken.
    pub fn takes(&self, host: &str, port: u16) -> bool {
        is_of(&self.host, host) && port == self.port
    }
}

/// A host that never sees a token: at every port, unless it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedHost {
    host: Box<str>,
    port: Option<u16>,
}

impl DeniedHost {
    /// Reads what [`TokenHost::parse`] does.
    pub fn parse(text: &str) -> Option<DeniedHost> {
        let TokenHost { host, port } = TokenHost::parse(text)?;
        let is_named = text.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        Some(DeniedHost { host, port: is_named.then_some(port) })
    }

    pub fn takes(&self, host: &str, port: u16) -> bool {
        is_of(&self.host, host) && self.port.is_none_or(|denied| denied == port)
    }
}

fn is_of(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => *host == *pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_sub_domains_alone() {
        let any = TokenHost { host: "*.example.com".into(), port: 443 };
        assert!(any.takes("a.example.com", 443));
        assert!(any.takes("a.b.example.com", 443));
        for (host, port) in [("example.com", 443), ("evilexample.com", 443), ("a.example.com", 8443), ("a.example.com.evil.net", 443)] {
            assert!(!any.takes(host, port), "{host}:{port}");
        }
    }

    #[test]
    fn a_denial_without_a_port_is_for_all_of_them() {
        let all = DeniedHost::parse("*.bc.example.com").expect("a host");
        let one = DeniedHost::parse("[::1]:8443").expect("a host");
        for port in [80, 443, 8443] {
            assert!(all.takes("a.bc.example.com", port) && !all.takes("bc.example.com", port), "{port}");
            assert_eq!(one.takes("[::1]", port), port == 8443, "{port}");
        }
        assert!(DeniedHost::parse("[::1]").is_some_and(|host| host.takes("[::1]", 1)));
    }

    #[test]
    fn token_hosts_are_hosts_and_ports() {
        for (text, expected) in [
            ("api.example.com", Some(("api.example.com", 443))),
            ("API.Example.com", Some(("api.example.com", 443))),
            ("localhost:7080", Some(("localhost", 7080))),
            ("*.googleapis.com", Some(("*.googleapis.com", 443))),
            ("[::1]:7080", Some(("[::1]", 7080))),
            ("*.com", None),
            ("*", None),
            ("https://api.example.com", None),
            ("api.example.com/v1", None),
            ("user@api.example.com", None),
            ("{host}", None),
            ("a b", None),
            ("", None),
            ("host:99999", None),
        ] {
            let found = TokenHost::parse(text);
            assert_eq!(found.as_ref().map(|host| (&*host.host, host.port)), expected, "{text}");
        }
    }
}
