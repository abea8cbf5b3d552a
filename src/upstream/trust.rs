//! Whom one registration trusts in place of the machine's roots: the authorities of its `ca_cert`.
//!
//! A connection made on this trust serves no call made on another: the pools know origins by it, and it has TLS configurations, and so sessions
//! to resume, of its own. Deliberately absent: any trust in a certificate because it was seen before, and any in none.

use super::numbers::Numbers;
use super::tls::TlsRoots;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::sync::Arc;

/// Why a text is no bundle of authorities. Its words never hold a byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustFault {
    #[error("is no certificate in PEM")]
    NoCertificate,
    #[error("holds a private key, which nobody is trusted by")]
    HoldsKey,
    #[error("holds a certificate (number {0}) that no authority can have")]
    NoAuthority(usize),
}

/// A bundle of authorities, checked. Equal bundles have one number, so that a reload keeps their connections.
pub struct Trust {
    /// Never 0, which is the machine's own.
    number: u32,
    roots: Arc<TlsRoots>,
}

static NUMBERS: Numbers = Numbers::new();

impl Trust {
    /// Reads one certificate or several, all of which are trusted.
    ///
    /// # Errors
    /// When any of them is none, or there is none.
    pub fn parse(pem: &str) -> Result<Trust, TrustFault> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(TrustFault::HoldsKey);
        }
        let roots: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let roots = roots.ok().filter(|roots| !roots.is_empty()).ok_or(TrustFault::NoCertificate)?;
        let mut all: Vec<&[u8]> = Vec::new();
        let mut store = RootCertStore::empty();
        for (index, root) in roots.iter().enumerate() {
            // Left out in silence, it would be missed only when a server shows what it signed.
            store.add(root.clone()).map_err(|_| TrustFault::NoAuthority(index + 1))?;
            all.push(root);
        }
        // The order of a bundle says nothing.
        all.sort_unstable();
        all.dedup();
        let joined: Vec<u8> = all.iter().flat_map(|root| root.len().to_be_bytes().into_iter().chain(root.iter().copied())).collect();
        Ok(Trust { number: NUMBERS.of(&joined), roots: TlsRoots::with_roots(roots) })
    }

    /// Tells it from every other; what is known by one trust alone is kept under it.
    pub fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn roots(&self) -> &Arc<TlsRoots> {
        &self.roots
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Origin, TlsIdentity};

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).expect("generated");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_bundle_is_certificates_and_nothing_else_is() {
        let ((one, key), (two, _)) = (made(), made());
        let both = Trust::parse(&format!("{one}{two}")).expect("a bundle");
        assert_eq!(both, Trust::parse(&format!("# ours\n{two}\n{one}{two}")).expect("the same"));
        assert_ne!(both, Trust::parse(&one).expect("another"));
        assert_ne!(both.number(), 0);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, expected) in [
            ("", TrustFault::NoCertificate),
            ("hunter2", TrustFault::NoCertificate),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", TrustFault::NoCertificate),
            (&*format!("{one}{key}"), TrustFault::HoldsKey),
            (&*format!("{one}{broken}"), TrustFault::NoAuthority(2)),
        ] {
            assert_eq!(Trust::parse(pem).expect_err("refused"), expected);
        }
    }

    #[test]
    fn pools_and_sessions_tell_trusts_apart() {
        let ((one, key), (two, _)) = (made(), made());
        let trust = |pem: &str| Arc::new(Trust::parse(pem).expect("a bundle"));
        let (first, second) = (trust(&one), trust(&two));
        let plain = Origin::new(true, "api.example.com", 443).expect("valid");
        let by = |trust: &Arc<Trust>| plain.trusting(Some(trust));
        assert!(by(&first).id != plain.id && by(&second).id != plain.id && by(&first).id != by(&second).id);
        assert_eq!(by(&first).id, by(&trust(&one)).id);
        assert_eq!((by(&first).trusting(None).id, by(&first).host_header.clone()), (plain.id, plain.host_header.clone()));
        // Whoever calls: both count, in whichever order they are said.
        let identity = Arc::new(TlsIdentity::parse(&one, &key).expect("an identity"));
        let called = plain.called_as(Some(&identity));
        assert_eq!(called.trusting(Some(&first)).id, by(&first).called_as(Some(&identity)).id);
        assert!(called.trusting(Some(&first)).id != called.id && called.trusting(Some(&first)).id != by(&first).id);
        // No TLS, nobody to trust.
        let open = Origin::new(false, "localhost", 80).expect("valid");
        assert_eq!(open.trusting(Some(&first)).id, open.id);
        let alpn: &[&[u8]] = &[b"http/1.1"];
        assert!(!Arc::ptr_eq(&first.roots().client_config(alpn), &second.roots().client_config(alpn)));
        assert!(!Arc::ptr_eq(&identity.client_config(first.roots(), alpn), &identity.client_config(second.roots(), alpn)));
    }
}
