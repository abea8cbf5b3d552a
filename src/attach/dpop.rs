//! A token that is bound to a key, and the proof of that key on each request (RFC 9449).
//!
//! The proofs of token calls are made here too, by `oauth`: one key, one way to sign. A key is parsed once a token; signing is the cost of the
//! scheme, some tens of microseconds of one core a request.

use super::{Around, AttachError};
use crate::base::clock::UnixMillis;
use crate::base::credential::Credential;
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use serde_json::json;
use std::sync::Arc;

/// Where a proof stands.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// Where a server says which nonce the next proof must hold.
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// What a token bound to a key is called (RFC 9449 §5); compared without regard to case.
const TOKEN_TYPE: &str = "DPoP";

/// Longer nonces are none: each request would carry them.
const NONCE_BYTES_MAX: usize = 1024;
/// Servers of one token whose nonces are kept.
const SERVERS_MAX: usize = 16;

/// Whether a token of this type is bound to a key.
pub fn is_bound(token_type: &str) -> bool {
    token_type.eq_ignore_ascii_case(TOKEN_TYPE)
}

/// A private key of a connection's, ready to sign. Its `Debug` shows nothing.
pub struct ProofKey {
    key: EcdsaKeyPair,
    /// The header of every proof, base64url as it is signed: `typ`, `alg` and the public key (RFC 9449 §4.2).
    header: Box<str>,
    thumbprint: Box<str>,
}

/// What one proof says.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    pub method: &'a str,
    /// The request's URI without query and fragment.
    pub uri: &'a str,
    pub at: UnixMillis,
    pub nonce: Option<&'a str>,
    /// [`hash_of`] the access token that goes with it.
    pub token_hash: Option<&'a str>,
}

impl ProofKey {
    /// A new key on P-256 as PKCS#8 in base64: the form in which a connection keeps it. `None` if none can be made.
    pub fn generate() -> Option<Secret> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        Some(Secret::new(STANDARD.encode(key.to_pkcs8v1().ok()?.as_ref())))
    }

    /// Reads the stored form. `None` if it is no such key.
    pub fn parse(stored: &Secret) -> Option<ProofKey> {
        let pkcs8 = zeroize::Zeroizing::new(STANDARD.decode(stored.expose()).ok()?);
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).ok()?;
        // An uncompressed point (SEC 1 §2.3.3): a 4, x, y.
        let point = key.public_key().as_ref();
        let (x, y) = (point.get(1..33)?, point.get(33..65)?);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": x, "y": y}});
        let header = URL_SAFE_NO_PAD.encode(header.to_string()).into();
        Some(ProofKey { key, header, thumbprint: thumbprint(&x, &y).into() })
    }

    /// The SHA-256 thumbprint of the public key (RFC 7638), as `dpop_jkt` says it.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// A proof with an id of its own: no two requests carry the same. `None` if the key does not sign.
    pub fn prove(&self, proof: &Proof<'_>) -> Option<HeaderValue> {
        let mut claims = json!({"jti": random_token(), "htm": proof.method, "htu": proof.uri, "iat": proof.at.0.max(0) / 1000});
        if let Some(hash) = proof.token_hash {
            claims["ath"] = hash.into();
        }
        if let Some(nonce) = proof.nonce {
            claims["nonce"] = nonce.into();
        }
        let mut text = String::with_capacity(self.header.len() + 400);
        text.push_str(&self.header);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).ok()?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProofKey")
    }
}

/// RFC 7638 §3.2 for a key on P-256: the required members in the order of their names.
fn thumbprint(x: &str, y: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes()))
}

/// `ath` of an access token (RFC 9449 §4.2).
pub fn hash_of(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))
}

/// The nonce in a server's answer, if it is one (RFC 9449 §8.1: NQCHAR).
pub fn nonce_in(headers: &http::HeaderMap) -> Option<&str> {
    let nonce = headers.get(&DPOP_NONCE)?.to_str().ok()?;
    let fits = (1..=NONCE_BYTES_MAX).contains(&nonce.len()) && nonce.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    fits.then_some(nonce)
}

/// The newest nonce of each server that one connection's calls go to. A reader takes no lock; two writers at once leave either's word, which is
/// a nonce that its server gave.
#[derive(Debug, Default)]
pub struct Nonces(ArcSwapOption<Vec<(u32, Arc<str>)>>);

impl Nonces {
    pub fn of(&self, server: u32) -> Option<Arc<str>> {
        self.0.load().as_ref()?.iter().find(|(other, _)| *other == server).map(|(_, nonce)| Arc::clone(nonce))
    }

    /// What a server said last stands.
    pub fn learn(&self, server: u32, nonce: &str) {
        let old = self.0.load();
        let old = old.as_ref().map_or(&[][..], |nonces| nonces);
        if old.iter().any(|(other, known)| *other == server && **known == *nonce) {
            return;
        }
        let others = old.iter().filter(|(other, _)| *other != server).take(SERVERS_MAX - 1).cloned();
        self.0.store(Some(Arc::new([(server, nonce.into())].into_iter().chain(others).collect())));
    }

    /// Those of the same connection's token before, where there are none yet.
    pub fn adopt(&self, before: &Nonces) {
        if self.0.load().is_none() {
            self.0.store(before.0.load_full());
        }
    }

    /// Those of another instead, where it has any.
    pub fn follow(&self, other: &Nonces) {
        if let Some(nonces) = other.0.load_full() {
            self.0.store(Some(nonces));
        }
    }
}

/// A token's key, ready to sign, and the token's hash.
#[derive(Debug)]
pub(super) struct Bound {
    key: ProofKey,
    token_hash: String,
}

impl Bound {
    /// A token that is bound to no key, or whose key is lost, is not sent: as a bearer's it would be good for whoever sees it.
    pub(super) fn of(credential: &Credential) -> Result<Bound, AttachError> {
        if !is_bound(&credential.token_type) {
            return Err(AttachError::Unbound);
        }
        let key = credential.key.as_ref().and_then(ProofKey::parse).ok_or(AttachError::Unbound)?;
        Ok(Bound { key, token_hash: hash_of(credential.access_token.expose()) })
    }

    /// The proof for a request that is whole but for it.
    pub(super) fn prove(&self, head: &Parts, around: &Around<'_>, nonces: &Nonces) -> Result<HeaderValue, AttachError> {
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| head.uri.authority().map(|host| host.as_str()));
        let scheme = if around.tls { "https" } else { "http" };
        let uri = format!("{scheme}://{}{}", host.unwrap_or_default(), head.uri.path());
        let nonce = nonces.of(around.server);
        let (method, nonce) = (head.method.as_str(), nonce.as_deref());
        let proof = Proof { method, uri: &uri, at: around.now, nonce, token_hash: Some(&self.token_hash) };
        self.key.prove(&proof).ok_or(AttachError::NoSignature)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::Value;

    /// Header and claims of a proof whose signature its own key verifies.
    pub(crate) fn verified(proof: &str) -> (Value, Value) {
        let parts: Vec<&str> = proof.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{proof}") };
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let json = |text: &str| serde_json::from_slice::<Value>(&decode(text)).expect("JSON");
        let (head, body) = (json(header), json(claims));
        assert_eq!((&head["typ"], &head["alg"]), (&"dpop+jwt".into(), &"ES256".into()));
        assert!(head["jwk"].get("d").is_none(), "the private half stays here");
        let member = |name: &str| decode(head["jwk"][name].as_str().expect("text"));
        let point = [vec![4], member("x"), member("y")].concat();
        let signed = &proof[..header.len() + 1 + claims.len()];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &decode(signature)).expect("signed by its key");
        (head, body)
    }

    fn key() -> ProofKey {
        ProofKey::parse(&ProofKey::generate().expect("made")).expect("parsed")
    }

    /// The key of RFC 9449's examples, whose thumbprint §6.1 and §10 state, and the token hash of §7.1.
    #[test]
    fn p30_thumbprint_and_ath_are_those_of_rfc_9449() {
        let found = thumbprint("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA");
        assert_eq!(found, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
        assert_eq!(hash_of(token), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    }

    #[test]
    fn p30_a_proof_says_method_uri_time_and_never_the_same_id_twice() {
        let key = key();
        let proof =
            Proof { method: "POST", uri: "https://as.test/token", at: UnixMillis(1_767_225_600_999), nonce: None, token_hash: None };
        let first = key.prove(&proof).expect("signed");
        assert!(first.is_sensitive());
        let (header, claims) = verified(first.to_str().expect("ASCII"));
        assert_eq!(claims["htm"], "POST");
        assert_eq!(claims["htu"], "https://as.test/token");
        assert_eq!(claims["iat"], 1_767_225_600);
        assert!(claims.get("nonce").is_none() && claims.get("ath").is_none());
        let again = key.prove(&Proof { nonce: Some("n1"), token_hash: Some("h"), ..proof }).expect("signed");
        let (again_header, again) = verified(again.to_str().expect("ASCII"));
        assert_eq!((&again["nonce"], &again["ath"]), (&"n1".into(), &"h".into()));
        assert_ne!(again["jti"], claims["jti"]);
        assert_eq!(header, again_header);
        let jwk = &header["jwk"];
        assert_eq!(key.thumbprint(), thumbprint(jwk["x"].as_str().expect("x"), jwk["y"].as_str().expect("y")));
    }

    #[test]
    fn what_is_no_key_on_p_256_is_none() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("generated").serialize_der();
        for stored in ["", "not base64!", "AAAA", &STANDARD.encode(other)] {
            assert!(ProofKey::parse(&stored.into()).is_none(), "{stored}");
        }
        assert_ne!(ProofKey::generate(), ProofKey::generate());
    }

    #[test]
    fn the_newest_nonce_of_each_server_stands_and_there_is_a_bound() {
        let nonces = Nonces::default();
        assert_eq!(nonces.of(1), None);
        nonces.learn(1, "a");
        nonces.learn(2, "b");
        nonces.learn(1, "c");
        assert_eq!((nonces.of(1).as_deref(), nonces.of(2).as_deref()), (Some("c"), Some("b")));
        let next = Nonces::default();
        next.adopt(&nonces);
        assert_eq!(next.of(1).as_deref(), Some("c"));
        next.follow(&Nonces::default());
        assert_eq!(next.of(2).as_deref(), Some("b"));
        (10..100).for_each(|server| nonces.learn(server, "x"));
        assert_eq!(nonces.0.load().as_ref().map(|all| all.len()), Some(SERVERS_MAX));
    }

    #[test]
    fn a_nonce_is_text_that_can_stand_in_a_proof() {
        let told = |nonce: &str| {
            let headers = http::HeaderMap::from_iter([(DPOP_NONCE, HeaderValue::from_str(nonce).expect("a value"))]);
            nonce_in(&headers).map(str::to_owned)
        };
        assert_eq!(told("eyJ7S_zG.eyJH0-Z.HX4w-7v").as_deref(), Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"));
        for nonce in ["", "a b", "a\"b", "a\\b", &"x".repeat(NONCE_BYTES_MAX + 1)] {
            assert_eq!(told(nonce), None, "{nonce}");
        }
    }
}
