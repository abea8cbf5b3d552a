//! An upstream's origin, interned so that a pool finds its idle connections by a small number.

use super::circuit::Circuit;
use super::identity::TlsIdentity;
use super::trust::Trust;
use http::HeaderValue;
use http::uri::{Authority, Scheme};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The process-wide number of one (scheme, host, port, client TLS identity, trust).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(pub u32);

/// Where requests of a route go. Equal origins share pooled connections; pools are keyed by upstream *and* client TLS identity
/// and trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub id: OriginId,
    pub tls: bool,
    /// Lower case, an IPv6 literal in its brackets, as it stands in a URL.
    pub host: Box<str>,
    pub port: u16,
    /// `host`, or `host:port` where the port is not the scheme's own.
    pub authority: Authority,
    /// The authority as the `Host` header says it.
    pub host_header: HeaderValue,
    /// The certificate that its connections show, where there is one.
    pub identity: Option<Arc<TlsIdentity>>,
    /// Whom its connections trust, where that is not the machine's roots.
    pub trust: Option<Arc<Trust>>,
    /// One for all equal origins, so that a reload keeps what is known of the upstream.
    pub circuit: Circuit,
}

/// A host and port that cannot stand in a URL's authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host that a URL can name")]
pub struct BadHost(pub String);

/// Whether by TLS, the authority, and the numbers of the certificate and the trust.
type Reached = (bool, String, u32, u32);

/// Places remembered: connections' values may name any number of them.
const KNOWN_MAX: usize = 65_536;

#[derive(Default)]
struct Interned {
    next: u32,
    known: HashMap<Reached, (OriginId, Circuit)>,
}

static INTERNED: LazyLock<Mutex<Interned>> = LazyLock::new(Mutex::default);

impl Origin {
    /// The origin `https://host:port` (`http://` without `tls`).
    ///
    /// # Errors
    /// When `host` is none.
    pub fn new(tls: bool, host: &str, port: u16) -> Result<Arc<Origin>, BadHost> {
        let mut origin = Origin::numbered(OriginId(0), tls, host, port)?;
        origin.intern();
        Ok(Arc::new(origin))
    }

    /// The same under a number of the caller's own, for pools that share none with the config's origins.
    ///
    /// # Errors
    /// When `host` is none.
    pub fn numbered(id: OriginId, tls: bool, host: &str, port: u16) -> Result<Origin, BadHost> {
        let host = host.to_ascii_lowercase();
        let own_port = if tls { 443 } else { 80 };
        let text = if port == own_port { host.clone() } else { format!("{host}:{port}") };
        let bad = || BadHost(text.clone());
        if host.contains('@') {
            return Err(bad());
        }
        let authority: Authority = text.parse().map_err(|_| bad())?;
        let host_header = HeaderValue::from_str(&text).map_err(|_| bad())?;
        Ok(Origin { id, tls, host: host.into(), port, authority, host_header, identity: None, trust: None, circuit: Circuit::default() })
    }

    /// The same place, called with this certificate or none: to a pool it is another. Without TLS there is nothing to show it on.
    #[must_use]
    pub fn called_as(&self, identity: Option<&Arc<TlsIdentity>>) -> Arc<Origin> {
        let mut origin = Origin { identity: identity.filter(|_| self.tls).cloned(), ..self.clone() };
        origin.intern();
        Arc::new(origin)
    }

    /// The same place, trusted by these authorities alone, or by the machine's: to a pool it is another.
    #[must_use]
    pub fn trusting(&self, trust: Option<&Arc<Trust>>) -> Arc<Origin> {
        let mut origin = Origin { trust: trust.filter(|_| self.tls).cloned(), ..self.clone() };
        origin.intern();
        Arc::new(origin)
    }

    /// Finds the number of this place, reached in this way, and what is known of it.
    fn intern(&mut self) {
        let identity = self.identity.as_ref().map_or(0, |identity| identity.number());
        let trust = self.trust.as_ref().map_or(0, |trust| trust.number());
        (self.id, self.circuit) = known_as((self.tls, self.authority.as_str().to_owned(), identity, trust));
    }

    pub fn scheme(&self) -> Scheme {
        if self.tls { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// The host without the brackets of an IPv6 literal: what DNS and TLS are asked for.
    pub fn dial_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// Whether the host is a loopback name or address, where plain HTTP is fine.
    pub fn is_loopback(&self) -> bool {
        let host = self.dial_host();
        host == "localhost" || host.ends_with(".localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

fn known_as(reached: Reached) -> (OriginId, Circuit) {
    // Taken at config load, and once a token where a connection's values choose the host; never on the path of a call otherwise.
    let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    let Interned { next, known } = &mut *interned;
    if known.len() >= KNOWN_MAX {
        // No number is given twice: what is forgotten and comes again is another place to the pools, and no more than that.
        known.clear();
    }
    let (id, circuit) = known.entry(reached).or_insert_with(|| {
        *next += 1;
        (OriginId(*next), Circuit::default())
    });
    (*id, circuit.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_origins_share_an_id() {
        let a = Origin::new(true, "API.example.com", 443).expect("valid");
        let b = Origin::new(true, "api.example.com", 443).expect("valid");
        assert_eq!(a.id, b.id);
        assert_eq!(a.host_header, "api.example.com");
        assert_ne!(a.id, Origin::new(false, "api.example.com", 443).expect("valid").id);
        assert_eq!(Origin::new(true, "api.example.com", 8443).expect("valid").host_header, "api.example.com:8443");
        assert!(Origin::new(true, "a@b", 443).is_err());
    }

    #[test]
    fn knows_loopback() {
        for host in ["localhost", "127.0.0.1", "[::1]", "drive.localhost"] {
            assert!(Origin::new(false, host, 80).expect("valid").is_loopback(), "{host}");
        }
        assert!(!Origin::new(false, "localhost.evil.net", 80).expect("valid").is_loopback());
    }
}
