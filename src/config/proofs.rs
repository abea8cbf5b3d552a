//! `dpop`, `secret_jwt`, `client_cert` and `client_cert_key`: what a registration proves itself and its tokens with; `ca_cert`: what its servers
//! prove themselves with.

use super::fields::{Fields, Problems, Shape};
use super::node::Node;
use super::scalar;
use crate::attach::Scheme;
use crate::provider::{Asks, ClientAuth, JwtKey, Proofs, Registration, SecretJwt};
use crate::upstream::{IdentityFault, TlsIdentity, Trust};
use std::sync::Arc;
use std::time::Duration;

const SECRET_JWT: Shape = Shape { name: "SecretJwt", said: "`secret_jwt`" };

/// It is made for one request; the rest is for clocks that differ.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// Apple takes no longer one.
const TTL_MAX: Duration = Duration::from_secs(180 * 24 * 3600);

/// What a self-made secret is signed by, unless the definition says otherwise.
const ALGORITHM_DEFAULT: &str = "ES256";

/// The keys that are there, of definition and registration together.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    dpop: bool,
    secret_jwt: Option<JwtKeys>,
}

#[derive(Debug, Clone)]
struct JwtKeys {
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
    ttl: Duration,
    algorithm: &'static str,
}

impl Keys {
    pub(super) fn read(fields: &Fields<'_>) -> Keys {
        Keys { dpop: fields.flag("dpop").unwrap_or(false), secret_jwt: secret_jwt(fields) }
    }

    pub(super) fn usual_attach(&self) -> Option<Scheme> {
        self.dpop.then_some(Scheme::Dpop)
    }

    /// Tells what does not go together, where the registration is on.
    pub(super) fn check(&self, fields: &Fields<'_>, with: &With<'_>) {
        let at_auth = fields.at_key("client_auth");
        if self.dpop && with.asks.is_some_and(|asks| asks != Asks::Consent) {
            fields.say(fields.at_key("dpop"), "`dpop` binds tokens to keys, and what an end user types is bound to none", None);
        }
        if let Some(attach) = with.attach
            && let Some(node) = fields.peek("attach")
        {
            check_attach(self.dpop, attach, node, fields.problems);
        }
        if with.client_auth == Some(ClientAuth::Mtls) && !with.has_cert {
            let hint = "write `client_cert: ${file:./client.pem}` and `client_cert_key: ${file:./client.key}`";
            fields.say(at_auth, "`client_auth: mtls` needs `client_cert`", Some(hint.into()));
        }
        if with.client_auth != Some(ClientAuth::SecretJwt) {
            return;
        }
        let say = |message: &str, hint: &str| fields.say(at_auth, message, Some(hint.to_owned()));
        if !with.has_key {
            say("`client_auth: secret_jwt` needs `client_key`", "write `client_key: ${file:./key.p8}` and its `client_key_id`");
        }
        let Some(keys) = &self.secret_jwt else {
            return say("`client_auth: secret_jwt` needs `secret_jwt`", "write `secret_jwt: {audience: …, issuer: …}`");
        };
        if keys.audience.is_none() {
            say("`secret_jwt` needs an `audience`", "the provider's own URL, as its documentation says");
        }
        if keys.issuer.is_none() {
            say(
                "`secret_jwt` needs an `issuer`",
                "write `secret_jwt: {issuer: …}` in the registration: the team or account that the key is of",
            );
        }
        if let Some(found) = with.key.map(JwtKey::algorithm).filter(|found| *found != keys.algorithm) {
            let hint = "ES256 is a key on P-256; the provider gave it with the key's id";
            let message = format!("`client_key` signs by {found}, and this provider's secrets are signed by {}", keys.algorithm);
            fields.say(fields.at_key("client_key"), message, Some(hint.into()));
        }
    }

    pub(super) fn build(&self, identity: Option<Arc<TlsIdentity>>, trust: Option<Arc<Trust>>) -> Proofs {
        let secret_jwt = self
            .secret_jwt
            .as_ref()
            .and_then(|keys| Some(SecretJwt { issuer: keys.issuer.clone()?, audience: keys.audience.clone()?, ttl: keys.ttl }));
        Proofs { dpop: self.dpop, identity, trust, secret_jwt }
    }
}

/// What else the registration says.
pub(super) struct With<'a> {
    pub(super) asks: Option<Asks>,
    pub(super) attach: Option<&'a Scheme>,
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) key: Option<&'a JwtKey>,
    pub(super) has_key: bool,
    pub(super) has_cert: bool,
}

/// A bound token goes with its proof alone, and another has none (RFC 9449 §7.1).
fn check_attach(dpop: bool, attach: &Scheme, node: &Node, problems: &Problems) {
    match (dpop, attach == &Scheme::Dpop) {
        (true, false) => problems.say(&node.at, "tokens by `dpop` are bound to keys: `attach: dpop` is the only way to send them", None),
        (false, true) => {
            problems.say(&node.at, "`attach: dpop` sends tokens that are bound to keys", Some("write `dpop: true` on the provider".into()));
        }
        (true, true) | (false, false) => {}
    }
}

/// The same of a route's own `attach`.
pub(super) fn check_route(registration: &Registration, attach: &Scheme, node: &Node, problems: &Problems) {
    check_attach(registration.proofs.dpop, attach, node, problems);
}

fn secret_jwt(fields: &Fields<'_>) -> Option<JwtKeys> {
    let fields = fields.section("secret_jwt", SECRET_JWT)?;
    let owned = |text: &str| Box::<str>::from(text);
    let (issuer, audience) = (fields.word("issuer").map(owned), fields.word("audience").map(owned));
    let ttl = fields.duration("ttl").unwrap_or(TTL_DEFAULT);
    if !(Duration::from_secs(1)..=TTL_MAX).contains(&ttl) {
        fields.say(fields.at_key("ttl"), "a client secret lives from 1s to 180d", None);
    }
    let names: Vec<_> = JwtKey::algorithms().map(|name| (name, name)).collect();
    let algorithm = fields.choice("algorithm", &names).unwrap_or(ALGORITHM_DEFAULT);
    fields.finish();
    Some(JwtKeys { issuer, audience, ttl, algorithm })
}

/// The registration's certificate. A fault never shows a byte of it or of its key.
pub(super) fn identity(fields: &Fields<'_>) -> Option<Arc<TlsIdentity>> {
    let (cert, key) = (fields.get("client_cert"), fields.get("client_cert_key"));
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return None,
        (Some(_), None) => {
            fields.say(fields.at_key("client_cert"), "`client_cert` needs `client_cert_key`", None);
            return None;
        }
        (None, Some(_)) => {
            fields.say(fields.at_key("client_cert_key"), "`client_cert_key` needs `client_cert`", None);
            return None;
        }
    };
    let (cert_pem, key_pem) = (scalar::text(cert, fields.problems)?, scalar::text(key, fields.problems)?);
    match TlsIdentity::parse(cert_pem, key_pem) {
        Ok(identity) => Some(Arc::new(identity)),
        Err(fault) => {
            let (name, at, hint) = match fault {
                IdentityFault::NoCertificate => {
                    ("client_cert", &cert.at, "name the file with the certificate, its issuers behind it: `${file:./client.pem}`")
                }
                IdentityFault::NoKey => {
                    ("client_cert_key", &key.at, "name the file of its key, without a passphrase: `${file:./client.key}`")
                }
                IdentityFault::Mismatch => ("client_cert_key", &key.at, "the first certificate of `client_cert` is the client's own"),
            };
            fields.say(at, format!("`{name}` {fault}"), Some(hint.into()));
            None
        }
    }
}

/// Whom the registration trusts in place of the machine's roots.
pub(super) fn trust(fields: &Fields<'_>) -> Option<Arc<Trust>> {
    let node = fields.get("ca_cert")?;
    match Trust::parse(scalar::text(node, fields.problems)?) {
        Ok(trust) => Some(Arc::new(trust)),
        Err(fault) => {
            let hint = "name the file with the certificates of those who sign for the provider's servers: `${file:./ca.pem}`";
            fields.say(&node.at, format!("`ca_cert` {fault}"), Some(hint.into()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::load_str;
    use super::super::snapshot::Snapshot;
    use super::*;
    use std::path::Path;
    use std::sync::LazyLock;

    struct Pems {
        key: String,
        rsa: String,
        cert: String,
        cert_key: String,
        other: String,
    }

    static PEMS: LazyLock<Pems> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(vec!["client.test".to_owned()]).expect("generated");
        let pem = |kind| rcgen::KeyPair::generate_for(kind).expect("generated").serialize_pem();
        Pems {
            key: pem(&rcgen::PKCS_ECDSA_P256_SHA256),
            rsa: pem(&rcgen::PKCS_RSA_SHA256),
            cert: made.cert.pem(),
            cert_key: made.signing_key.serialize_pem(),
            other: pem(&rcgen::PKCS_ECDSA_P256_SHA256),
        }
    });

    fn env(name: &str) -> Option<String> {
        let pems = &*PEMS;
        let text = match name {
            "KEY" => &pems.key,
            "RSA" => &pems.rsa,
            "CERT" => &pems.cert,
            "CERT_KEY" => &pems.cert_key,
            "OTHER" => &pems.other,
            _ => return None,
        };
        Some(text.clone())
    }

    fn load(keys: &str) -> Result<Snapshot, super::super::error::ConfigErrors> {
        let text = format!(
            "providers:\n  w: {{client_id: a, issuer: https://a.b, token_hosts: [c.d], {keys}}}\nroutes:\n  - {{match: /a, provider: w, upstream: https://c.d/}}\n"
        );
        load_str(&text, Path::new("routes.yaml"), Path::new("/etc/attache"), &env)
    }

    #[track_caller]
    fn good(keys: &str) -> (Arc<Registration>, Arc<crate::upstream::Origin>, Scheme) {
        let snapshot = load(keys).unwrap_or_else(|errors| panic!("{errors}\n{keys}"));
        let route = &snapshot.route_list[0];
        let super::super::snapshot::RouteOrigin::Fixed(origin) = &route.origin else { panic!("a host of a connection's") };
        (snapshot.providers["w"].clone(), origin.clone(), route.attach.clone())
    }

    #[track_caller]
    fn bad(keys: &str, message: &str) {
        let errors = load(keys).err().unwrap_or_else(|| panic!("taken: {keys}")).to_string();
        assert!(errors.contains(message), "{keys}: {errors}");
        assert!(!errors.contains("BEGIN") && !errors.contains("MIG"), "{errors}");
    }

    #[test]
    fn p31_dpop_is_attached_as_such_and_no_other_way() {
        let (reg, _, attach) = good("dpop: true");
        assert!(reg.proofs.dpop);
        assert_eq!((&reg.attach, attach), (&Scheme::Dpop, Scheme::Dpop));
        assert_eq!(good("dpop: true, attach: dpop").2, Scheme::Dpop);
        assert_eq!(good("dpop: false").2, Scheme::Bearer);
        bad("dpop: true, attach: bearer", "the only way to send them");
        bad("dpop: true, attach: {query: key}", "the only way to send them");
        bad("attach: dpop", "sends tokens that are bound to keys");
        bad("dpop: true, credential: api_key", "bound to none");
        let route = "providers:\n  w: {client_id: a, issuer: https://a.b, dpop: true, token_hosts: [c.d]}\nroutes:\n  - {match: /a, provider: w, upstream: https://c.d/, attach: bearer}\n";
        let errors = load_str(route, Path::new("routes.yaml"), Path::new("/"), &env).expect_err("refused").to_string();
        assert!(errors.contains("the only way to send them"), "{errors}");
    }

    #[test]
    fn p29_a_certificate_is_checked_at_load_and_the_routes_of_its_provider_have_it() {
        let cert = r#"client_cert: "${CERT}", client_cert_key: "${CERT_KEY}""#;
        let (reg, origin, _) = good(&format!("client_auth: mtls, {cert}"));
        assert_eq!(reg.client_auth, ClientAuth::Mtls);
        assert_eq!((origin.identity.as_ref(), origin.identity.is_some()), (reg.proofs.identity.as_ref(), true));
        assert_eq!(good("client_secret: s").1.identity, None);
        assert!(good(cert).0.proofs.identity.is_some(), "tokens may be bound to a certificate whatever else proves the client");
        bad("client_auth: mtls", "`client_auth: mtls` needs `client_cert`");
        bad(r#"client_cert: "${CERT}""#, "`client_cert` needs `client_cert_key`");
        bad(r#"client_cert_key: "${CERT_KEY}""#, "`client_cert_key` needs `client_cert`");
        bad(r#"client_cert: "${KEY}", client_cert_key: "${CERT_KEY}""#, "`client_cert` is no certificate");
        bad(r#"client_cert: "${CERT}", client_cert_key: "${CERT}""#, "`client_cert_key` is no private key");
        bad(r#"client_cert: "${CERT}", client_cert_key: "${OTHER}""#, "`client_cert_key` is not the key of that certificate");
    }

    #[test]
    fn q08_a_self_made_secret_needs_key_issuer_and_audience() {
        let key = r#"client_auth: secret_jwt, client_key: "${KEY}", client_key_id: K1"#;
        let (reg, ..) = good(&format!("{key}, secret_jwt: {{audience: https://appleid.apple.com, issuer: TEAM}}"));
        assert_eq!(reg.client_auth, ClientAuth::SecretJwt);
        let expected = SecretJwt { issuer: "TEAM".into(), audience: "https://appleid.apple.com".into(), ttl: TTL_DEFAULT };
        assert_eq!(reg.proofs.secret_jwt, Some(expected));
        bad(key, "`client_auth: secret_jwt` needs `secret_jwt`");
        bad(&format!("{key}, secret_jwt: {{issuer: TEAM}}"), "needs an `audience`");
        bad(&format!("{key}, secret_jwt: {{audience: a}}"), "needs an `issuer`");
        bad(&format!("{key}, secret_jwt: {{audience: a, issuer: b, ttl: 181d}}"), "from 1s to 180d");
        bad("client_auth: secret_jwt, secret_jwt: {audience: a, issuer: b}", "needs `client_key`");
        let rsa = r#"client_auth: secret_jwt, client_key: "${RSA}", secret_jwt: {audience: a, issuer: b"#;
        bad(&format!("{rsa}}}"), "`client_key` signs by RS256");
        good(&format!("{rsa}, algorithm: RS256}}"));
    }
}
