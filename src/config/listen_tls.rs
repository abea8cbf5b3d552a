//! `tls` of a listener: its certificate and key, and whose client certificates it takes.
//!
//! Each value is a path, relative to the config file and watched with it, or the PEM text itself, as `${file:PATH}` and `${NAME}` fill it in.
//! What was read goes live with the config, so that a renewed certificate needs no restart.

use super::fields::{Fields, Problems, Shape};
use super::node::Node;
use super::scalar;
use super::snapshot::ServerTls;
use super::sources::Sources;
use crate::upstream::{IdentityFault, certified};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;

const TLS: Shape = Shape { name: "ListenerTls", said: "`tls`" };

/// What a listener's server speaks, and what a client certificate is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Callers are told apart by it: one without is none of those that need it.
    Proxy,
    /// Nobody is known by it here: it is a wall, and none gets in without.
    Control,
}

pub(super) fn read(listener: &Fields<'_>, sources: &Sources<'_>, for_: For) -> Option<Arc<ServerTls>> {
    let fields = listener.section("tls", TLS)?;
    let (cert, key) = (fields.need("cert"), fields.need("key"));
    let client_ca = fields.get("client_ca");
    let text = |node: Option<&Node>, what| node.and_then(|node| pem(node, what, sources, fields.problems));
    let (cert_pem, key_pem) = (text(cert, "cert"), text(key, "key"));
    let verifier = client_ca.map(|node| verifier(node, sources, fields.problems, for_));
    fields.finish();
    let (cert, key) = (cert?, key?);
    let certified = match certified(&cert_pem?, &key_pem?) {
        Ok(certified) => certified,
        Err(fault) => {
            let (name, node, hint) = match fault {
                IdentityFault::NoCertificate => ("cert", cert, "the listener's own certificate in PEM, its issuers behind it"),
                IdentityFault::NoKey => ("key", key, "the key of the certificate in PEM, without a passphrase"),
                IdentityFault::Mismatch => ("key", key, "the first certificate of `cert` is the listener's own"),
            };
            listener.problems.say(&node.at, format!("`{name}` {fault}"), Some(hint.into()));
            return None;
        }
    };
    let asks = client_ca.is_some();
    let certificate = certified.end_entity_cert().ok()?.clone().into_owned();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = match for_ {
        For::Proxy => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        For::Control => vec![b"http/1.1".to_vec()],
    };
    Some(Arc::new(ServerTls { config: Arc::new(config), certificate, asks_certificate: asks }))
}

/// The PEM text of a value. No fault shows a byte of it.
fn pem(node: &Node, key: &str, sources: &Sources<'_>, problems: &Problems) -> Option<String> {
    let text = scalar::text(node, problems)?;
    if text.contains("-----BEGIN") {
        return Some(text.to_owned());
    }
    if text.trim().is_empty() || text.contains('\n') {
        let hint = "name its file, or fill it in by `${file:PATH}`".to_owned();
        problems.say(&node.at, format!("`{key}` is neither a path nor a text in PEM"), Some(hint));
        return None;
    }
    let path = sources.path(text);
    match sources.read(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            let hint = "a path is relative to the config file".to_owned();
            problems.say(&node.at, format!("cannot read `{key}` ({}): {error}", path.display()), Some(hint));
            None
        }
    }
}

fn verifier(node: &Node, sources: &Sources<'_>, problems: &Problems, for_: For) -> Option<Arc<dyn ClientCertVerifier>> {
    let text = pem(node, "client_ca", sources, problems)?;
    let mut roots = RootCertStore::empty();
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        // One that cannot be used would refuse its clients in silence: every one must be good.
        if certificate.map_err(drop).and_then(|certificate| roots.add(certificate).map_err(drop)).is_err() {
            found = 0;
            break;
        }
        found += 1;
    }
    if found == 0 {
        let hint = "the certificates of the authorities that sign your clients', one behind the other".to_owned();
        problems.say(&node.at, "`client_ca` is no list of certificates in PEM", Some(hint));
        return None;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let built = match for_ {
        For::Proxy => builder.allow_unauthenticated().build(),
        For::Control => builder.build(),
    };
    built.map_err(|error| problems.say(&node.at, format!("`client_ca` cannot be used: {error}"), None)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::load::load_str;
    use std::path::Path;
    use std::sync::LazyLock;

    static PEMS: LazyLock<(String, String, String)> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("generated");
        let other = rcgen::KeyPair::generate().expect("generated").serialize_pem();
        (made.cert.pem(), made.signing_key.serialize_pem(), other)
    });

    fn env(name: &str) -> Option<String> {
        let (cert, key, other) = &*PEMS;
        [("CERT", cert), ("KEY", key), ("OTHER", other)].iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).clone())
    }

    fn load(listen: &str, more: &str) -> Result<super::super::Snapshot, String> {
        let text = format!("listen:\n{listen}{more}routes: []\n");
        load_str(&text, Path::new("routes.yaml"), Path::new("/nowhere"), &env).map_err(|errors| errors.to_string())
    }

    #[track_caller]
    fn bad(listen: &str, more: &str, place: &str, message: &str) {
        let errors = load(listen, more).expect_err("refused");
        assert!(errors.contains(message) && errors.contains(place), "{errors}");
        assert!(!errors.contains("BEGIN") && !errors.contains("MIG"), "{errors}");
    }

    const GOOD: &str = r#"{cert: "${CERT}", key: "${KEY}"}"#;

    #[test]
    fn every_listener_takes_tls_and_faults_are_told_at_their_place() {
        for listener in ["proxy", "public", "admin", "health"] {
            let snapshot = load(&format!("  {listener}: {{bind: 127.0.0.1:1, tls: {GOOD}}}\n"), "").expect("taken");
            let tls = &snapshot.tls;
            let found = [&tls.proxy, &tls.public, &tls.admin, &tls.health].map(Option::is_some);
            assert_eq!(found, ["proxy", "public", "admin", "health"].map(|name| name == listener));
        }
        let one = |tls: &str| format!("  proxy:\n    bind: 127.0.0.1:1\n    tls: {tls}\n");
        bad(&one(r#"{cert: "${CERT}"}"#), "", ":4:10", "`tls` needs `key`");
        bad(&one(r#"{cert: "${CERT}", key: "${OTHER}"}"#), "", ":4:", "`key` is not the key of that certificate");
        bad(&one(r#"{cert: "${KEY}", key: "${KEY}"}"#), "", ":4:", "`cert` is no certificate");
        bad(&one(r#"{cert: "${CERT}", key: "${CERT}"}"#), "", ":4:", "`key` is no private key");
        bad(&one(r#"{cert: ./no.pem, key: "${KEY}"}"#), "", ":4:", "cannot read `cert` (/nowhere/no.pem)");
        bad(&one(r#"{cert: "${CERT}", key: "${KEY}", client_ca: "${KEY}"}"#), "", ":4:", "`client_ca` is no list of certificates");
        bad(&one(r#"{cert: "${CERT}", key: "${KEY}", ca: x}"#), "", ":4:", "unknown key `ca`");
        bad(&format!("  proxy: {{bind: 'unix:/a', tls: {GOOD}}}\n"), "", ":2:", "unix sockets alone");
    }

    #[test]
    fn an_admin_listener_off_loopback_needs_tls() {
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            bad(&format!("  admin: '{address}'\n"), "", ":2:", "needs `tls`");
            load(&format!("  admin: {{bind: '{address}', tls: {GOOD}}}\n"), "").expect("taken");
        }
        load("  admin: '[::ffff:127.0.0.1]:1'\n", "").expect("it is this machine's loopback");
    }

    #[test]
    fn a_proxy_listener_that_strangers_reach_needs_callers_with_tls_or_without() {
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[::ffff:0.0.0.0]:1"] {
            for tls in [String::new(), format!(", tls: {GOOD}"), format!(", tls: {{client_ca: \"${{CERT}}\", {}", &GOOD[1..])] {
                let listener = format!("{{bind: '{address}'{tls}}}");
                let exposed = "anyone there could use your users' tokens";
                bad(&format!("  proxy: {listener}\n"), "", ":2:", exposed);
                let origin = format!("{{bind: '{address}'{tls}, as: none, upstream: https://a.b/}}");
                bad(&format!("  proxy: 127.0.0.1:9\n  origins:\n    - {origin}\n"), "", ":4:", exposed);
                load(&format!("  proxy: {listener}\n"), "callers: [{name: a, uid: 1}]\n").expect("taken");
            }
        }
    }

    #[test]
    fn a_caller_by_certificate_needs_a_listener_that_asks_for_one() {
        let caller = "callers: [{name: a, cert_san: spiffe://prod/app}]\n";
        let plain = format!("  proxy: {{bind: 127.0.0.1:1, tls: {GOOD}}}\n");
        bad(&plain, caller, ":3:", "no listener asks for client certificates");
        let asking = format!("  proxy: {{bind: 127.0.0.1:1, tls: {{client_ca: \"${{CERT}}\", {}}}\n", &GOOD[1..]);
        let snapshot = load(&asking, caller).expect("taken");
        assert_eq!(snapshot.callers.0[0].cert_sans, [Box::<str>::from("spiffe://prod/app")]);
        for (san, message) in
            [("'*.a.b'", "no wildcards"), ("a@b.c", "e-mail"), ("''", "is empty"), ("[]", "names no"), ("'a b'", "neither")]
        {
            bad(&asking, &format!("callers: [{{name: a, cert_san: {san}}}]\n"), ":3:", message);
        }
        let open = load(&asking, "").expect("taken");
        assert!(open.warnings.iter().any(|warning| warning.contains("client_ca")), "{:?}", open.warnings);
    }
}
