//! The signature methods (RFC 5849 §3.4.2 to §3.4.4, and HMAC-SHA256, which several providers have besides).

use super::AttachError;
use super::base_string::push_encoded;
use crate::base::secret::Secret;
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rsa::PrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::SignatureEncoding;
use rsa::signature::hazmat::PrehashSigner;
use rsa::traits::PublicKeyParts;
use sha1::Sha1;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The least that is worth signing with.
const RSA_BITS_MIN: u32 = 2048;

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Method {
    #[default]
    HmacSha1,
    HmacSha256,
    RsaSha1(RsaKey),
    /// The secrets themselves, over TLS or loopback.
    Plaintext,
}

/// An RSA key that signs by SHA-1. By the `rsa` crate, since aws-lc-rs signs by no hash that weak, and the method has no other. Its signer blinds each
/// signature with the system's random numbers (its feature `getrandom`, which Cargo.toml names), for its arithmetic alone does not hide the key from
/// whoever times it. That is an inversion and a few multiplications more for each signature.
#[derive(Clone)]
pub struct RsaKey {
    pem: Secret,
    key: Arc<SigningKey<Sha1>>,
}

/// Why a text is no such key. Its words never hold a byte of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RsaKeyFault {
    #[error("is no RSA private key in PEM (PKCS#8 or PKCS#1)")]
    NoKey,
    #[error("is an RSA key of less than 2048 bits")]
    Weak,
}

impl RsaKey {
    /// Reads a key in PEM.
    ///
    /// # Errors
    /// When the text is no RSA private key, or one that is too short.
    pub fn parse(pem: Secret) -> Result<RsaKey, RsaKeyFault> {
        let text = pem.expose();
        let key = PrivateKey::from_pkcs8_pem(text).ok().or_else(|| PrivateKey::from_pkcs1_pem(text).ok());
        let key = key.ok_or(RsaKeyFault::NoKey)?;
        if key.size() * 8 < RSA_BITS_MIN as usize {
            return Err(RsaKeyFault::Weak);
        }
        Ok(RsaKey { pem, key: Arc::new(SigningKey::new(key)) })
    }
}

impl PartialEq for RsaKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for RsaKey {}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RsaKey(…)")
    }
}

impl Method {
    pub fn name(&self) -> &'static str {
        match self {
            Method::HmacSha1 => "HMAC-SHA1",
            Method::HmacSha256 => "HMAC-SHA256",
            Method::RsaSha1(_) => "RSA-SHA1",
            Method::Plaintext => "PLAINTEXT",
        }
    }

    /// Whether whoever reads a signature has the secrets.
    pub fn shows_its_secrets(&self) -> bool {
        matches!(self, Method::Plaintext)
    }

    /// `base` is asked for where it is signed at all.
    pub(super) fn signature(
        &self,
        base: impl Fn() -> String,
        client_secret: &str,
        token_secret: &str,
    ) -> Result<Zeroizing<String>, AttachError> {
        let mac = |algorithm, key: &str| {
            let key = hmac::Key::new(algorithm, key.as_bytes());
            STANDARD.encode(hmac::sign(&key, base().as_bytes()))
        };
        Ok(Zeroizing::new(match self {
            Method::HmacSha1 => mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secrets(client_secret, token_secret)),
            Method::HmacSha256 => mac(hmac::HMAC_SHA256, &secrets(client_secret, token_secret)),
            Method::RsaSha1(key) => {
                let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, base().as_bytes());
                STANDARD.encode(key.key.sign_prehash(hash.as_ref()).map_err(|_| AttachError::NoSignature)?.to_bytes())
            }
            Method::Plaintext => return Ok(secrets(client_secret, token_secret)),
        }))
    }
}

/// §3.4.2: both secrets, each escaped, and the `&` between them always.
fn secrets(client_secret: &str, token_secret: &str) -> Zeroizing<String> {
    // Large enough at once: growing would leave a copy behind that nobody wipes.
    let mut key = Zeroizing::new(String::with_capacity(3 * (client_secret.len() + token_secret.len()) + 1));
    push_encoded(client_secret.as_bytes(), &mut key);
    key.push('&');
    push_encoded(token_secret.as_bytes(), &mut key);
    key
}
