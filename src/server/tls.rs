//! The server's side of TLS: handshakes off the accept loop and within a time, with the certificate that the config has by now, and the names
//! in the client's.

use crate::config::{Live, ServerTls};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The most handshakes under way at once on one worker, or on one control listener: each costs some 40 KB.
pub(super) const HANDSHAKES_MAX: usize = 1024;

/// Which listener's certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Proxy,
    Public,
    Admin,
    Health,
    /// One of `listen.origins`, by its number.
    Origin(usize),
}

/// A listener's TLS, as the live config has it at each connection: so a renewed certificate is shown to the next client.
#[derive(Debug, Clone)]
pub struct Tls {
    live: Arc<Live>,
    which: Which,
}

/// A client behind a finished handshake.
pub(super) struct Secured {
    pub(super) stream: TlsStream<TcpStream>,
    /// The names in its verified certificate: URIs, and DNS names in lower case.
    pub(super) cert_sans: Vec<Box<str>>,
}

impl Tls {
    pub fn new(live: &Arc<Live>, which: Which) -> Tls {
        Tls { live: Arc::clone(live), which }
    }

    fn current(&self) -> Option<Arc<ServerTls>> {
        let snapshot = self.live.swap().load();
        let tls = &snapshot.tls;
        match self.which {
            Which::Proxy => tls.proxy.clone(),
            Which::Public => tls.public.clone(),
            Which::Admin => tls.admin.clone(),
            Which::Health => tls.health.clone(),
            Which::Origin(number) => tls.origins.get(number).cloned().flatten(),
        }
    }

    /// # Errors
    /// When the client takes too long, speaks no TLS, or shows a certificate that none of `client_ca` signed.
    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<Secured> {
        // The config keeps one for every listener that runs with TLS; without it there is no plain way in instead.
        let tls = self.current().ok_or_else(|| io::Error::other("the listener has no certificate"))?;
        let accepted = tokio::time::timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream)).await;
        let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let cert_sans = if tls.asks_certificate { cert_sans(&stream) } else { Vec::new() };
        Ok(Secured { stream, cert_sans })
    }
}

fn cert_sans(stream: &TlsStream<TcpStream>) -> Vec<Box<str>> {
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else { return Vec::new() };
    // It was parsed and verified in the handshake by the same library.
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let names = certificate.valid_dns_names().map(|name| name.to_ascii_lowercase().into());
    // A URI without an authority could pass for a DNS name, which other rules of the issuing CA constrain.
    names.chain(certificate.valid_uri_names().filter(|uri| uri.contains("://")).map(Into::into)).collect()
}

/// What the client and we agreed to speak, if the client named anything.
pub(super) fn alpn(stream: &TlsStream<TcpStream>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}
