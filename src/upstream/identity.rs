//! Who we are on a TLS connection: a client certificate and its key (RFC 8705).
//!
//! A connection made as one identity serves no other: the pools know origins by the identity too, and each identity has TLS configurations,
//! and so sessions to resume, of its own.

use super::numbers::Numbers;
use super::tls::TlsRoots;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a certificate and a key are no identity. Its words never hold a byte of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFault {
    #[error("is no certificate in PEM")]
    NoCertificate,
    #[error("is no private key in PEM (PKCS#8, PKCS#1 or SEC 1)")]
    NoKey,
    #[error("is not the key of that certificate")]
    Mismatch,
}

/// A certificate with its key, checked. Equal certificates have one number, so that a reload keeps their connections.
pub struct TlsIdentity {
    /// Never 0, which is nobody.
    number: u32,
    certified: Arc<CertifiedKey>,
    configs: Mutex<Vec<Made>>,
}

/// A configuration, and what it was made for.
struct Made {
    alpn: Vec<Vec<u8>>,
    roots: usize,
    config: Arc<ClientConfig>,
}

static NUMBERS: Numbers = Numbers::new();

impl TlsIdentity {
    /// Reads a chain, the client's own certificate first, and the key of that one.
    ///
    /// # Errors
    /// When either is not what it should be, or they do not belong together.
    pub fn parse(cert_pem: &str, key_pem: &str) -> Result<TlsIdentity, IdentityFault> {
        let certified = certified(cert_pem, key_pem)?;
        let mut all = Vec::new();
        for certificate in &certified.cert {
            all.extend_from_slice(&certificate.len().to_be_bytes());
            all.extend_from_slice(certificate);
        }
        Ok(TlsIdentity { number: NUMBERS.of(&all), certified: Arc::new(certified), configs: Mutex::default() })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The client side of TLS that shows this certificate to servers that ask for one. Equal lists share one configuration.
    pub(super) fn client_config(&self, roots: &TlsRoots, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let serial = roots.serial();
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = configs.iter().find(|made| made.roots == serial && made.alpn.iter().eq(alpn.iter())) {
            return Arc::clone(&made.config);
        }
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)));
        let config = Arc::new(roots.build(alpn.clone(), Some(resolver)));
        configs.push(Made { alpn, roots: serial, config: Arc::clone(&config) });
        config
    }
}

/// A chain, the holder's own certificate first, with the key of that one; also what our own listeners show.
///
/// # Errors
/// When either is not what it should be, or they do not belong together.
pub fn certified(cert_pem: &str, key_pem: &str) -> Result<CertifiedKey, IdentityFault> {
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(IdentityFault::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| IdentityFault::NoKey)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| IdentityFault::NoKey)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(IdentityFault::Mismatch),
        Err(_) => Err(IdentityFault::NoCertificate),
    }
}

impl PartialEq for TlsIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for TlsIdentity {}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Origin;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["client.test".to_owned()]).expect("generated");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn p29_a_certificate_and_its_key_are_an_identity_and_nothing_else_is() {
        let ((cert, key), (other_cert, other_key)) = (pair(), pair());
        let found = TlsIdentity::parse(&cert, &key).expect("an identity");
        assert_eq!(found, TlsIdentity::parse(&cert, &key).expect("the same"));
        assert_ne!(found, TlsIdentity::parse(&other_cert, &other_key).expect("another"));
        assert_ne!(found.number(), 0);
        for (cert, key, expected) in [
            ("hunter2", &*key, IdentityFault::NoCertificate),
            (&*key, &key, IdentityFault::NoCertificate),
            (&*cert, "hunter2", IdentityFault::NoKey),
            (&cert, &cert, IdentityFault::NoKey),
            (&cert, &other_key, IdentityFault::Mismatch),
        ] {
            assert_eq!(TlsIdentity::parse(cert, key).expect_err("refused"), expected);
        }
        assert!(!format!("{found:?}").contains("BEGIN"));
    }

    #[test]
    fn p29_pools_tell_origins_apart_by_who_calls() {
        let ((cert, key), (other_cert, other_key)) = (pair(), pair());
        let first = Arc::new(TlsIdentity::parse(&cert, &key).expect("an identity"));
        let second = Arc::new(TlsIdentity::parse(&other_cert, &other_key).expect("an identity"));
        let plain = Origin::new(true, "api.example.com", 443).expect("valid");
        let (as_first, as_second) = (plain.called_as(Some(&first)), plain.called_as(Some(&second)));
        assert!(as_first.id != plain.id && as_second.id != plain.id && as_first.id != as_second.id);
        assert_eq!(as_first.id, Origin::new(true, "API.example.com", 443).expect("valid").called_as(Some(&first)).id);
        assert_eq!(as_first.host_header, plain.host_header);
        assert_eq!((as_first.called_as(None).id, as_first.called_as(None).identity.clone()), (plain.id, None));
        // No TLS, no certificate.
        let open = Origin::new(false, "localhost", 80).expect("valid");
        assert_eq!(open.called_as(Some(&first)).id, open.id);
    }

    #[test]
    fn p29_sessions_are_not_shared_with_anyone_else() {
        let (cert, key) = pair();
        let identity = TlsIdentity::parse(&cert, &key).expect("an identity");
        let (roots, others) = (TlsRoots::with_roots(Vec::new()), TlsRoots::with_roots(Vec::new()));
        let config = identity.client_config(&roots, &[b"http/1.1"]);
        assert!(Arc::ptr_eq(&config, &identity.client_config(&roots, &[b"http/1.1"])));
        assert!(!Arc::ptr_eq(&config, &identity.client_config(&others, &[b"http/1.1"])));
        assert!(!Arc::ptr_eq(&config, &roots.client_config(&[b"http/1.1"])));
        assert!(config.client_auth_cert_resolver.has_certs() && !roots.client_config(&[b"http/1.1"]).client_auth_cert_resolver.has_certs());
    }
}
