//! What a sandbox is told: its clients, its lives and leeways, and the switches that tests and developers turn while it runs.

use crate::base::secret::Secret;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use url::{Host, Url};

/// A client registration at the sandbox.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: String,
    /// A client without a secret is a public one (RFC 6749 §2.1): it authenticates with nothing and must use PKCE.
    pub secret: Option<Secret>,
    /// Compared exactly, but that a loopback one fits with any port (RFC 8252 §7.3).
    pub redirect_uris: Vec<String>,
}

impl Client {
    pub fn new(id: &str, secret: Option<&str>, redirect_uris: &[&str]) -> Self {
        let redirect_uris = redirect_uris.iter().map(|uri| (*uri).to_owned()).collect();
        Client { id: id.to_owned(), secret: secret.map(Secret::from), redirect_uris }
    }

    pub(super) fn may_redirect_to(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| registered == uri || loopback_twin(registered, uri))
    }
}

/// Whether two URIs are the same plain HTTP URI of a loopback host but for the port.
fn loopback_twin(registered: &str, asked: &str) -> bool {
    let (Ok(registered), Ok(asked)) = (Url::parse(registered), Url::parse(asked)) else { return false };
    let plain = |url: &Url| url.scheme() == "http" && url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    plain(&registered)
        && plain(&asked)
        && is_loopback(registered.host())
        && registered.host() == asked.host()
        && registered.path() == asked.path()
        && registered.query() == asked.query()
}

fn is_loopback(host: Option<Host<&str>>) -> bool {
    match host {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An answer that the token endpoint gives instead of doing its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailToken {
    pub status: u16,
    pub content_type: String,
    pub body: String,
    /// The value of `Retry-After`.
    pub retry_after: Option<String>,
    /// How many more times; `None` is until told otherwise.
    pub times: Option<u64>,
}

/// How the sandbox behaves. All but `bind` can be changed while it runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; loopback only, since it lets anybody in as anybody.
    pub bind: SocketAddr,
    pub clients: Vec<Client>,
    /// Who the consent page offers; any other name can be typed there.
    pub users: Vec<String>,
    /// The scopes it knows; another one is `invalid_scope`. Empty: any will do.
    pub scopes: Vec<String>,
    pub access_token_life: Duration,
    /// Counted from the refresh token's issue; `None` is for ever.
    pub refresh_token_life: Option<Duration>,
    /// A refresh gives a new refresh token and retires the old one; otherwise the answer holds none and the old one stays good.
    pub rotate: bool,
    /// For how long after its rotation the last refresh token may be used again, since its answer may have been lost.
    pub reuse_leeway: Duration,
    /// Also of confidential clients; public ones always need it.
    pub require_pkce: bool,
    /// The token endpoint does its work, then waits this long before it answers.
    pub token_delay: Duration,
    /// The API waits this long before it does anything.
    pub api_delay: Duration,
    /// How long a device must wait between two polls (RFC 8628 §3.5).
    pub device_interval: Duration,
    pub fail_token: Option<FailToken>,
    /// So many token answers are lost: the work is done, then the connection is cut.
    pub lose_token_answers: u64,
    /// The API answers 401 to every token.
    pub api_reject_all: bool,
    /// The API answers 401 to so many calls more.
    pub api_reject_next: u64,
}

impl Settings {
    /// The client that [`Settings::default`] registers: its id, secret and redirect URI path.
    pub const DEV_CLIENT_ID: &'static str = "printpixie";
    pub const DEV_CLIENT_SECRET: &'static str = "sandbox-secret";

    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let redirects = [
            "http://127.0.0.1:7071/oauth/callback/sandbox",
            "http://localhost:7071/oauth/callback/sandbox",
            "http://127.0.0.1:7071/oauth/callback/sandbox-oauth1",
            "http://localhost:7071/oauth/callback/sandbox-oauth1",
        ];
        Settings {
            bind: (Ipv4Addr::LOCALHOST, 7080).into(),
            clients: vec![Client::new(Self::DEV_CLIENT_ID, Some(Self::DEV_CLIENT_SECRET), &redirects)],
            users: ["megan@personalemail.com", "alex@personalemail.com", "sam@personalemail.com"].map(str::to_owned).into(),
            scopes: ["photos.read", "photos.write", "profile", "offline_access"].map(str::to_owned).into(),
            access_token_life: Duration::from_secs(30),
            refresh_token_life: None,
            rotate: true,
            reuse_leeway: Duration::from_secs(10),
            require_pkce: true,
            token_delay: Duration::ZERO,
            api_delay: Duration::ZERO,
            device_interval: Duration::from_secs(1),
            fail_token: None,
            lose_token_answers: 0,
            api_reject_all: false,
            api_reject_next: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(registered: &str, asked: &str, expected: bool) {
        let client = Client::new("app", None, &[registered]);
        assert_eq!(client.may_redirect_to(asked), expected, "{registered} {asked}");
    }

    #[test]
    fn redirect_uris_are_exact_but_for_a_loopback_port() {
        check("https://app.example.com/cb", "https://app.example.com/cb", true);
        check("https://app.example.com/cb", "https://app.example.com:8443/cb", false);
        check("https://app.example.com/cb", "https://app.example.com/cb/", false);
        check("https://app.example.com/cb", "https://app.example.com/cb?x=1", false);
        check("http://127.0.0.1:7071/cb", "http://127.0.0.1:50123/cb", true);
        check("http://127.0.0.1/cb", "http://127.0.0.1:50123/cb", true);
        check("http://localhost/cb", "http://localhost:3000/cb", true);
        check("http://[::1]/cb", "http://[::1]:3000/cb", true);
        check("http://localhost/cb", "http://127.0.0.1:3000/cb", false);
        check("http://localhost/cb", "http://localhost:3000/other", false);
        check("http://localhost/cb", "http://localhost:3000/cb#x", false);
        check("http://localhost/cb", "http://me@localhost:3000/cb", false);
        check("http://localhost/cb", "http://localhost.evil.example/cb", false);
        check("http://app.example.com/cb", "http://app.example.com:81/cb", false);
    }

    #[test]
    fn settings_never_show_a_client_secret() {
        assert!(!format!("{:?}", Settings::default()).contains(Settings::DEV_CLIENT_SECRET));
    }
}
