//! A private key that signs JWTs: parsed once at load, so that a broken one is told there and not at the first token call.

use crate::base::secret::Secret;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// A key with the algorithm it signs by. There is nothing in its `Debug` but that algorithm and its public id.
#[derive(Clone)]
pub struct JwtKey {
    pem: Secret,
    key: EncodingKey,
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
}

/// Why a text is no key. Its words never hold a byte of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("is no private key in PEM (PKCS#8, PKCS#1 or SEC 1)")]
    NoKey,
    #[error("cannot sign by that algorithm")]
    Unfit,
}

/// The algorithms with a public key (RFC 7518 §3.1, RFC 8037 §3.1), the usual one of each kind of key first.
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("PS256", Algorithm::PS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
];

impl JwtKey {
    /// The names that `algorithm` takes.
    pub fn algorithms() -> impl Iterator<Item = &'static str> {
        ALGORITHMS.iter().map(|(name, _)| *name)
    }

    /// Reads a key and proves it by a signature. Without an algorithm it is the usual one of the kind of key.
    ///
    /// # Errors
    /// When the text is no key, or one of another kind than the algorithm takes.
    pub fn parse(pem: Secret, algorithm: Option<&str>, key_id: Option<Box<str>>) -> Result<JwtKey, KeyFault> {
        let keys = keys(&pem);
        if keys.is_empty() {
            return Err(KeyFault::NoKey);
        }
        let wanted = |name: &str| algorithm.is_none_or(|wanted| wanted == name);
        for (_, algorithm) in ALGORITHMS.iter().filter(|(name, _)| wanted(name)) {
            for key in keys.iter().filter(|key| key.family().algorithms().contains(algorithm)) {
                let made = JwtKey { pem: pem.clone(), key: key.clone(), algorithm: *algorithm, key_id: key_id.clone() };
                if made.sign(&Value::Object(serde_json::Map::new())).is_some() {
                    return Ok(made);
                }
            }
        }
        Err(if algorithm.is_some() { KeyFault::Unfit } else { KeyFault::NoKey })
    }

    /// The claims as a signed JWT (RFC 7519 §7.1). `None` if the signature cannot be made, which [`JwtKey::parse`] has ruled out.
    pub fn sign(&self, claims: &Value) -> Option<Secret> {
        let header = Header { kid: self.key_id.as_deref().map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).ok().map(Secret::new)
    }

    pub fn algorithm(&self) -> &'static str {
        ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == self.algorithm).map_or("", |(name, _)| name)
    }
}

impl PartialEq for JwtKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem && self.algorithm == other.algorithm && self.key_id == other.key_id
    }
}

impl Eq for JwtKey {}

impl std::fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtKey").field("algorithm", &self.algorithm).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// What the text may be a key of. An RSA parser takes public keys too: the signature in [`JwtKey::parse`] tells.
fn keys(pem: &Secret) -> Vec<EncodingKey> {
    let text = pem.expose().as_bytes();
    let sec1 = || match PrivateKeyDer::from_pem_slice(text) {
        // `EC PRIVATE KEY` is what `openssl ecparam -genkey` writes; the JWT crate takes PKCS#8 alone.
        Ok(PrivateKeyDer::Sec1(der)) => [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING]
            .into_iter()
            .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).ok()?.to_pkcs8v1().ok())
            .map(|pkcs8| EncodingKey::from_ec_der(pkcs8.as_ref())),
        _ => None,
    };
    let (rsa, ec, ed) = (EncodingKey::from_rsa_pem(text), EncodingKey::from_ec_pem(text), EncodingKey::from_ed_pem(text));
    [rsa.ok(), ec.ok(), ed.ok(), sec1()].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
    use serde_json::json;

    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIOLxwvsGZuAoJ6T2+S/Bgp6EOp1UGgWChKxtencAZ8X+oAoGCCqGSM49
AwEHoUQDQgAEnZh4ErFP/Ku3m1oNlqMPDVP8VKKdpv9S+mkc+TJzgjhwDNNBtKxo
+rDltHy6vq4ZN8kF01A2OZur98DRF13faQ==
-----END EC PRIVATE KEY-----
";

    #[test]
    fn a_key_of_each_kind_signs() {
        for (kind, expected) in [(&PKCS_ECDSA_P256_SHA256, "ES256"), (&PKCS_ECDSA_P384_SHA384, "ES384"), (&PKCS_ED25519, "EdDSA")] {
            let pem = KeyPair::generate_for(kind).expect("generated").serialize_pem();
            let key = JwtKey::parse(Secret::new(pem), None, Some("k1".into())).expect("a key");
            assert_eq!(key.algorithm(), expected);
            let signed = key.sign(&json!({"iss": "me"})).expect("signed");
            let header = jsonwebtoken::decode_header(signed.expose()).expect("a header");
            assert_eq!((header.kid.as_deref(), header.typ.as_deref()), (Some("k1"), Some("JWT")));
        }
        let rsa = Secret::new(KeyPair::generate_for(&PKCS_RSA_SHA256).expect("generated").serialize_pem());
        for (asked, expected) in [(None, "RS256"), (Some("PS384"), "PS384"), (Some("RS512"), "RS512")] {
            assert_eq!(JwtKey::parse(rsa.clone(), asked, None).expect("a key").algorithm(), expected);
        }
        assert_eq!(JwtKey::parse(rsa, Some("ES256"), None), Err(KeyFault::Unfit));
        assert_eq!(JwtKey::parse(Secret::new(SEC1), None, None).expect("a key").algorithm(), "ES256");
    }

    #[test]
    fn what_cannot_sign_is_refused_without_a_word_of_it() {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generated");
        let broken = SEC1.replace("MHcCAQEE", "CANARY++");
        for (text, algorithm, expected) in [
            ("hunter2", None, KeyFault::NoKey),
            ("", None, KeyFault::NoKey),
            (&*broken, None, KeyFault::NoKey),
            (&*pair.public_key_pem(), None, KeyFault::NoKey),
            (SEC1, Some("RS256"), KeyFault::Unfit),
            (SEC1, Some("ES384"), KeyFault::Unfit),
            (SEC1, Some("HS256"), KeyFault::Unfit),
            (SEC1, Some("none"), KeyFault::Unfit),
        ] {
            let fault = JwtKey::parse(Secret::new(text), algorithm, None).expect_err(text);
            assert_eq!(fault, expected, "{text} {algorithm:?}");
        }
        let shown = format!("{:?}", JwtKey::parse(Secret::new(SEC1), None, None));
        assert!(!shown.contains("MHcC") && shown.contains("ES256"), "{shown}");
    }
}
