//! Whom we trust: the roots that upstream and token endpoint certificates are checked against.
//!
//! Deliberately absent: any switch that turns the checks off; the one check of another kind is `pinned.rs`. An operator adds a root to the machine's own, or names a bundle in
//! `SSL_CERT_FILE`, which is read in place of the machine's.

use super::pinned::Pinned;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// Root certificates, read at the first use, and one client configuration per protocol list, so that TLS sessions are resumed.
pub struct TlsRoots {
    whom: Whom,
    /// Tells these roots from others, whose place in memory may have been theirs.
    serial: usize,
    store: OnceLock<Arc<RootCertStore>>,
    configs: Mutex<HashMap<Vec<Vec<u8>>, Arc<ClientConfig>>>,
}

enum Whom {
    /// The machine's own roots.
    System,
    Roots(Vec<CertificateDer<'static>>),
    /// The holder of one certificate.
    Holder(Arc<Pinned>),
}

static SERIALS: AtomicUsize = AtomicUsize::new(0);

static SYSTEM: LazyLock<Arc<TlsRoots>> = LazyLock::new(|| Arc::new(TlsRoots::of(Whom::System)));

impl TlsRoots {
    /// The machine's roots (or `SSL_CERT_FILE`'s), or Mozilla's where the machine has none. Read once for the process.
    pub fn system() -> Arc<Self> {
        Arc::clone(&SYSTEM)
    }

    /// These roots alone.
    pub fn with_roots(roots: Vec<CertificateDer<'static>>) -> Arc<Self> {
        Arc::new(Self::of(Whom::Roots(roots)))
    }

    /// The authorities of a file in PEM, alone.
    ///
    /// # Errors
    /// When it cannot be read or holds none.
    pub fn of_file(path: &std::path::Path) -> Result<Arc<Self>, String> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let roots = found.map_err(|error| error.to_string())?;
        if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(Self::with_roots(roots)) }
    }

    /// No root: the server that holds the key of this very certificate, under whatever name.
    pub fn only(certificate: CertificateDer<'static>) -> Arc<Self> {
        Arc::new(Self::of(Whom::Holder(Pinned::new(certificate))))
    }

    fn of(whom: Whom) -> Self {
        let serial = SERIALS.fetch_add(1, Ordering::Relaxed);
        TlsRoots { whom, serial, store: OnceLock::new(), configs: Mutex::default() }
    }

    /// The client side of TLS 1.2 and 1.3 that offers `alpn`, best first. Equal lists share one configuration and its session cache.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&alpn) {
            return Arc::clone(config);
        }
        let config = Arc::new(self.build(alpn.clone(), None));
        configs.insert(alpn, Arc::clone(&config));
        config
    }

    /// Tells these roots from all others, also from those that are gone.
    pub(super) fn serial(&self) -> usize {
        self.serial
    }

    /// `certificate` is shown to servers that ask for one.
    pub(super) fn build(&self, alpn: Vec<Vec<u8>>, certificate: Option<Arc<dyn ResolvesClientCert>>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        #[expect(clippy::expect_used, reason = "the provider is a constant that supports both versions")]
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports the default protocol versions");
        let builder = match &self.whom {
            Whom::Holder(pinned) => builder.dangerous().with_custom_certificate_verifier(Arc::clone(pinned) as _),
            Whom::System | Whom::Roots(_) => builder.with_root_certificates(Arc::clone(self.roots())),
        };
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => builder.with_client_cert_resolver(certificate),
        };
        config.alpn_protocols = alpn;
        config
    }

    fn roots(&self) -> &Arc<RootCertStore> {
        self.store.get_or_init(|| {
            let mut store = RootCertStore::empty();
            match &self.whom {
                Whom::System => add_system(&mut store),
                Whom::Roots(given) => drop(store.add_parsable_certificates(given.iter().cloned())),
                Whom::Holder(_) => {}
            }
            Arc::new(store)
        })
    }
}

fn add_system(store: &mut RootCertStore) {
    let found = rustls_native_certs::load_native_certs();
    let errors = found.errors.len();
    let (added, ignored) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        // A minimal container has no root store; SSL_CERT_FILE that names a broken file ends here too, which is worth a warning.
        if std::env::var_os("SSL_CERT_FILE").is_some() {
            tracing::warn!(tls.errors = errors, "SSL_CERT_FILE holds no usable certificate: Mozilla's root certificates are used instead");
        }
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    tracing::debug!(tls.roots = store.len(), tls.ignored = ignored, tls.errors = errors, "root certificates read");
}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsRoots").field("serial", &self.serial).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_protocol_lists_share_one_configuration() {
        let roots = TlsRoots::with_roots(Vec::new());
        let first = roots.client_config(&[b"http/1.1"]);
        assert!(Arc::ptr_eq(&first, &roots.client_config(&[b"http/1.1"])));
        assert!(!Arc::ptr_eq(&first, &roots.client_config(&[b"h2", b"http/1.1"])));
        assert_eq!(first.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn the_system_has_roots_and_is_read_once() {
        assert!(!TlsRoots::system().roots().is_empty());
        assert!(Arc::ptr_eq(&TlsRoots::system(), &TlsRoots::system()));
    }
}
