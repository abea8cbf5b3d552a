//! The id token (OpenID Connect Core 1.0 §3.1.3.7): whose account it was that was connected, proved by the issuer's signature.
//!
//! Asked for by a nonce alone. Deliberately absent: symmetric algorithms and `none`, the JWT crate's own reading of the clock, and keys from
//! anywhere but the issuer's `jwks_uri`: whatever a token's header says of keys (`jwk`, `jku`, `x5u`) is not looked at.

use super::cache::{Cache, Missing};
use super::discovery::{document, failed, is_issuer, kept_under};
use super::{TokenClient, TokenError};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::provider::Registration;
use crate::upstream::Fetch;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long a key set is taken as it was. An unknown key is looked for at once; this is how long one that was withdrawn may live on.
const KEYS_FRESH_FOR: Duration = Duration::from_secs(3600);

const KEYS_MAX: usize = 100;

/// How far the issuer's clock and ours may be apart.
const SKEW_S: f64 = 60.0;

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

pub(super) type KeyCache = Cache<Vec<Jwk>>;

pub(super) fn cache(clock: Arc<dyn Clock>) -> KeyCache {
    Cache::new(clock, KEYS_FRESH_FOR)
}

/// Completes "the provider answered 200 with …".
type Why = &'static str;

impl TokenClient {
    /// The `sub` of the id token, once all of it is proved.
    pub(super) async fn verify_id_token(
        &self,
        reg: &Registration,
        id_token: Option<&str>,
        nonce: &Secret,
        access_token: &str,
    ) -> Result<Box<str>, TokenError> {
        let bad = |why: Why| TokenError::unusable(200, why, None);
        let issuer = reg.issuer.as_deref().ok_or_else(|| TokenError::cannot("an id token cannot be verified without `issuer`"))?;
        let token = id_token.ok_or_else(|| bad("no id token, though one was asked for"))?;
        let metadata = self.metadata(reg, issuer).await.map_err(spent)?;
        let no_keys = || TokenError::cannot("the issuer's metadata names no keys (`jwks_uri`) to verify an id token by");
        let jwks = metadata.jwks.as_ref().ok_or_else(no_keys)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| bad("an id token that is no signed JWT of an algorithm we take"))?;
        check_header(&header, &metadata.id_token_algorithms).map_err(bad)?;
        let fetch = self.documents_for(reg);
        let (kept, load) = (kept_under(reg, jwks.as_str()), || fetch_keys(&fetch, jwks));
        let keys = self.keys.get(&kept, load).await.map_err(spent)?;
        let claims = match verified(token, &header, &keys) {
            Some(claims) => claims,
            // The issuer may have begun to sign by a new key; asked once.
            None if !knows(&keys, &header) => {
                let keys = self.keys.newer(&kept, &keys, load).await.map_err(spent)?;
                verified(token, &header, &keys).ok_or_else(|| bad("an id token whose signature no key of the issuer made"))?
            }
            None => return Err(bad("an id token whose signature no key of the issuer made")),
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below the limit")]
        let now = self.now_s() as f64;
        check_claims(&claims, (issuer, &reg.dialect.issuers), &reg.client_id, nonce, now).map_err(bad)?;
        check_at_hash(&claims, header.alg, access_token).map_err(bad)?;
        let subject = claims["sub"].as_str().filter(|sub| !sub.is_empty() && sub.len() <= 255);
        subject.map(Box::from).ok_or_else(|| bad("an id token without a subject"))
    }
}

/// A failure on the way to the keys comes after the code was sent.
fn spent(missing: Missing) -> TokenError {
    TokenError { sent: true, ..failed(missing) }
}

async fn fetch_keys(fetch: &Fetch, url: &Url) -> Result<Vec<Jwk>, Missing> {
    let document = document(fetch, url).await?;
    Ok(keys_of(&document))
}

/// The keys of a JWK Set (RFC 7517 §5) that may sign.
fn keys_of(document: &Value) -> Vec<Jwk> {
    let keys = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    // One by one: a key of a kind that we do not know must not hide the others (RFC 7517 §5).
    let keys = keys.iter().take(KEYS_MAX).filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    keys.filter(|key| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption))).collect()
}

/// Whether one of these keys made the signature, for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(super) fn signed_by(token: &str, keys: &Value) -> bool {
    let Ok(header) = jsonwebtoken::decode_header(token) else { return false };
    check_header(&header, &[]).is_ok() && verified(token, &header, &keys_of(keys)).is_some()
}

fn check_header(header: &Header, told: &[String]) -> Result<(), Why> {
    let name = ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == header.alg).map(|(name, _)| *name);
    // HS256 is signed by what the client knows too, and with a public key taken for its secret by anyone.
    let name = name.ok_or("an id token of an algorithm without a public key")?;
    if !told.is_empty() && !told.iter().any(|told| told == name) {
        return Err("an id token of an algorithm that its issuer does not announce");
    }
    // RFC 7515 §4.1.11: what is not understood and must be is refused.
    if header.crit.is_some() { Err("an id token with extensions that we do not know") } else { Ok(()) }
}

/// The keys that may have made the signature: those of its `kid`, or all where it names none.
fn candidates<'k>(keys: &'k [Jwk], header: &Header) -> impl Iterator<Item = &'k Jwk> {
    let kid = header.kid.clone();
    keys.iter().filter(move |key| kid.is_none() || key.common.key_id == kid)
}

fn knows(keys: &[Jwk], header: &Header) -> bool {
    header.kid.is_some() && candidates(keys, header).next().is_some()
}

fn verified(token: &str, header: &Header, keys: &[Jwk]) -> Option<Value> {
    let mut validation = Validation::new(header.alg);
    // The signature alone: the claims are checked by our own clock and rules.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    candidates(keys, header).find_map(|key| {
        let key = DecodingKey::from_jwk(key).ok()?;
        // A key of another family than the algorithm's is refused there, an octet key with it.
        jsonwebtoken::decode::<Value>(token, &key, &validation).ok().map(|data| data.claims)
    })
}

/// OpenID Connect Core 1.0 §3.1.3.7, items 2 to 5 and 9 to 11.
fn check_claims(claims: &Value, (issuer, further): (&str, &[Box<str>]), client_id: &str, nonce: &Secret, now: f64) -> Result<(), Why> {
    if !claims["iss"].as_str().is_some_and(|told| is_issuer(told, issuer, further)) {
        return Err("an id token of another issuer");
    }
    let audiences: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !audiences.contains(&client_id) {
        return Err("an id token for another client");
    }
    match claims.get("azp").map(|azp| azp.as_str()) {
        Some(azp) if azp != Some(client_id) => return Err("an id token that another client asked for"),
        None if audiences.len() > 1 => return Err("an id token for several clients that does not say whose it is"),
        Some(_) | None => {}
    }
    if claims["exp"].as_f64().is_none_or(|exp| exp + SKEW_S <= now) {
        return Err("an id token that has expired");
    }
    if claims["iat"].as_f64().is_none_or(|iat| iat - SKEW_S > now) {
        return Err("an id token from the future");
    }
    if claims["nonce"].as_str().is_none_or(|found| !nonce.matches(found.as_bytes())) {
        return Err("an id token for another request (`nonce`)");
    }
    Ok(())
}

/// OpenID Connect Core 1.0 §3.1.3.8: the left half of the access token's hash, where the id token holds it.
fn check_at_hash(claims: &Value, algorithm: Algorithm, access_token: &str) -> Result<(), Why> {
    let Some(told) = claims.get("at_hash") else { return Ok(()) };
    let hash = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        // Ed25519 hashes by SHA-512 itself (RFC 8032 §5.1).
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let hash = digest::digest(hash, access_token.as_bytes());
    let half = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2]);
    if told.as_str() == Some(&*half) { Ok(()) } else { Err("an id token for another access token (`at_hash`)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenID Connect Core 1.0 Appendix A.3: the id token's `at_hash` and its access token.
    #[test]
    fn the_specifications_own_hash() {
        let claims = serde_json::json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"});
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(check_at_hash(&claims, Algorithm::RS256, token), Ok(()));
        assert!(check_at_hash(&claims, Algorithm::RS256, "another").is_err());
        assert!(check_at_hash(&claims, Algorithm::RS384, token).is_err());
        assert!(check_at_hash(&serde_json::json!({"at_hash": null}), Algorithm::RS256, token).is_err());
        assert_eq!(check_at_hash(&serde_json::json!({}), Algorithm::RS256, token), Ok(()));
    }
}
