//! `end_user.jwt`: who the end user is, proved by a signed token (RFC 7519) and by the operator's rules alone (RFC 8725).
//!
//! Deliberately absent: `none`, keys from anywhere but the rules (what a token's header says of keys, `jwk`, `jku`, `x5u`, `x5c`, is not looked
//! at), extensions (`crit`), and the JWT crate's own reading of the clock.

use super::end_user::check_name;
use super::keyset::{KeySet, PublicKey, Published};
use crate::base::clock::UnixMillis;
use crate::base::digest::sha256;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// The longest token taken, in bytes (contract §3).
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the issuer's clock and ours may be apart in `nbf` and `iat`, in seconds. `exp` has no leeway: a token that has ended has ended.
const SKEW_S: f64 = 60.0;

/// Keys that are tried on one token: those of one name, or all where it names none.
const TRIES_MAX: usize = 8;

/// The words of `algorithms`.
pub const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("EdDSA", Algorithm::EdDSA),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
];

/// How tokens are judged.
#[derive(PartialEq, Eq)]
pub struct JwtRules {
    pub keys: Keys,
    /// Never of both families: HMAC goes with a secret, all others with published keys.
    pub algorithms: Vec<Algorithm>,
    /// One of them must be in `aud`. Empty: a token that has an `aud` is for someone else (RFC 7519 §4.1.3).
    pub audiences: Vec<Box<str>>,
    pub issuer: Option<Box<str>>,
    /// The claim that holds the name.
    pub claim: Box<str>,
}

/// What proves a signature.
pub enum Keys {
    Secret(SecretKey),
    Published(Arc<Published>),
}

/// The content of `secret_file`.
pub struct SecretKey {
    key: DecodingKey,
    print: [u8; 32],
}

impl SecretKey {
    pub fn new(secret: &[u8]) -> SecretKey {
        SecretKey { key: DecodingKey::from_secret(secret), print: sha256(secret) }
    }
}

impl Keys {
    /// Takes over what was fetched from the same place.
    pub(super) fn adopt(&mut self, before: &Keys) {
        if let (Keys::Published(own), Keys::Published(before)) = (self, before)
            && own.url == before.url
        {
            *own = Arc::clone(before);
        }
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Keys) -> bool {
        match (self, other) {
            (Keys::Secret(one), Keys::Secret(other)) => one.print == other.print,
            (Keys::Published(one), Keys::Published(other)) => one.url == other.url,
            _ => false,
        }
    }
}

impl Eq for Keys {}

impl fmt::Debug for JwtRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtRules({:?})", self.algorithms)
    }
}

/// A token that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    pub name: Box<str>,
    /// Its `exp`.
    pub until: UnixMillis,
}

/// Why a token proves nobody. Never holds a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproved {
    Invalid(&'static str),
    /// It names a key that the set has not, or none and no key of the set signed it: the issuer may have begun to sign by a new one.
    UnknownKey,
}

const UNSIGNED: Unproved = Unproved::Invalid("its token does not verify: no key that is known here signed it as it is");

impl JwtRules {
    /// Whom the token names. `set`: the published keys, where the rules go by those.
    ///
    /// # Errors
    /// When any of the rules is broken.
    pub fn verify(&self, token: &str, set: Option<&KeySet>, now: UnixMillis) -> Result<Proved, Unproved> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unproved::Invalid("its token is longer than 8 KiB"));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| Unproved::Invalid("it is no signed token (JWT) of an algorithm that is known here"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(Unproved::Invalid("its token is signed by an algorithm that `end_user.jwt` does not take"));
        }
        // RFC 7515 §4.1.11: what is not understood and must be is refused.
        if header.crit.is_some() {
            return Err(Unproved::Invalid("its token has extensions that must be understood and are not (`crit`)"));
        }
        let kid = header.kid.as_deref();
        let (claims, otherwise) = match (&self.keys, set) {
            (Keys::Secret(secret), _) => (signed(token, &header, &secret.key), UNSIGNED),
            (Keys::Published(_), Some(set)) if set.knows(kid) => {
                let mut candidates = set.candidates(kid, header.alg).take(TRIES_MAX);
                let claims = candidates.find_map(|PublicKey { key, .. }| signed(token, &header, key));
                // A token that names no key may be signed by one that is not in the set yet.
                (claims, if kid.is_some() { UNSIGNED } else { Unproved::UnknownKey })
            }
            (Keys::Published(_), _) => return Err(Unproved::UnknownKey),
        };
        let claims = claims.ok_or(otherwise)?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below the limit")]
        let now = now.0 as f64 / 1000.0;
        self.judge(&claims, now).map_err(Unproved::Invalid)
    }

    /// RFC 7519 §4.1: what the claims say of time, issuer and audience, and the name.
    fn judge(&self, claims: &Value, now: f64) -> Result<Proved, &'static str> {
        let exp = claims["exp"].as_f64().ok_or("its token does not say when it ends (`exp`)")?;
        if exp <= now {
            return Err("its token has expired");
        }
        for claim in ["nbf", "iat"] {
            match claims.get(claim).map(Value::as_f64) {
                None => {}
                Some(Some(from)) if from - SKEW_S <= now => {}
                Some(Some(_)) => return Err("its token is from the future (`nbf`, `iat`)"),
                Some(None) => return Err("its token's times are no numbers (`nbf`, `iat`)"),
            }
        }
        if self.issuer.as_deref().is_some_and(|issuer| claims["iss"].as_str() != Some(issuer)) {
            return Err("its token is of another issuer (`iss`)");
        }
        let ours = |told: &Value| told.as_str().is_some_and(|told| self.audiences.iter().any(|ours| **ours == *told));
        let for_us = match claims.get("aud") {
            None => self.audiences.is_empty(),
            Some(Value::Array(all)) => all.iter().any(ours),
            Some(one) => ours(one),
        };
        if !for_us {
            return Err("its token is for another audience (`aud`)");
        }
        let name = claims.get(&*self.claim).ok_or("its token lacks the claim that `end_user.jwt.claim` names")?;
        let name = name.as_str().ok_or("the claim that `end_user.jwt.claim` names holds no text")?;
        check_name(name)?;
        #[expect(clippy::cast_possible_truncation, reason = "a float that is too large becomes the largest time")]
        let until = UnixMillis((exp * 1000.0) as i64);
        Ok(Proved { name: name.into(), until })
    }
}

/// The claims, where that key made the signature. A key of another family than the algorithm's is refused there.
fn signed(token: &str, header: &Header, key: &DecodingKey) -> Option<Value> {
    let mut validation = Validation::new(header.alg);
    // The signature alone: the claims are judged by our own clock and rules.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    jsonwebtoken::decode::<Value>(token, key, &validation).ok().map(|data| data.claims).filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, encode};
    use proptest::prelude::*;
    use serde_json::json;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
    const NOW_S: i64 = 1_767_225_600;

    fn rules() -> JwtRules {
        JwtRules {
            keys: Keys::Secret(SecretKey::new(SECRET)),
            algorithms: vec![Algorithm::HS256],
            audiences: vec!["attache".into()],
            issuer: Some("https://id.example".into()),
            claim: "sub".into(),
        }
    }

    fn claims(changes: &Value) -> Value {
        let mut claims = json!({"iss": "https://id.example", "aud": "attache", "sub": "megan", "exp": NOW_S + 60});
        let all = claims.as_object_mut().expect("an object");
        for (key, value) in changes.as_object().expect("an object") {
            if value.is_null() {
                all.remove(key);
            } else {
                all.insert(key.clone(), value.clone());
            }
        }
        claims
    }

    fn token(header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_secret(SECRET)).expect("signed")
    }

    fn check(changes: &Value, expected: Result<&str, &str>) {
        let token = token(&Header::default(), &claims(changes));
        let found = rules().verify(&token, None, NOW);
        match (&found, expected) {
            (Ok(proved), Ok(name)) => assert_eq!(&*proved.name, name, "{changes}"),
            (Err(Unproved::Invalid(why)), Err(part)) => assert!(why.contains(part), "{changes}: {why}"),
            _ => panic!("{changes}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_token_that_keeps_every_rule_names_its_end_user() {
        check(&json!({}), Ok("megan"));
        check(&json!({"aud": ["other", "attache"]}), Ok("megan"));
        check(&json!({"nbf": NOW_S + 60, "iat": NOW_S + 60}), Ok("megan"));
        check(&json!({"exp": NOW_S as f64 + 0.5}), Ok("megan"));
        check(&json!({"sub": "zoë"}), Ok("zoë"));
    }

    #[test]
    fn one_broken_rule_is_enough() {
        for (changes, part) in [
            (json!({"exp": NOW_S}), "expired"),
            (json!({"exp": NOW_S - 3600}), "expired"),
            (json!({"exp": null}), "`exp`"),
            (json!({"exp": "1900000000"}), "`exp`"),
            (json!({"exp": -1e300}), "expired"),
            (json!({"nbf": NOW_S + 61}), "future"),
            (json!({"iat": NOW_S + 61}), "future"),
            (json!({"nbf": "soon"}), "numbers"),
            (json!({"iss": "https://evil.example"}), "issuer"),
            (json!({"iss": null}), "issuer"),
            (json!({"iss": ["https://id.example"]}), "issuer"),
            (json!({"aud": "other"}), "audience"),
            (json!({"aud": ["other"]}), "audience"),
            (json!({"aud": null}), "audience"),
            (json!({"aud": 7}), "audience"),
            (json!({"sub": null}), "lacks the claim"),
            (json!({"sub": 7}), "no text"),
            // The JWT crate refuses it first: `sub` is a text by RFC 7519 §4.1.2.
            (json!({"sub": ["megan"]}), "does not verify"),
            (json!({"sub": ""}), "empty"),
            (json!({"sub": "megan,alex"}), "comma"),
            (json!({"sub": "megan\u{0}"}), "control"),
            (json!({"sub": "m".repeat(257)}), "256"),
        ] {
            check(&changes, Err(part));
        }
    }

    #[test]
    fn an_audience_that_is_not_configured_is_not_ours() {
        let open = JwtRules { audiences: Vec::new(), issuer: None, ..rules() };
        let of = |changes| open.verify(&token(&Header::default(), &claims(&changes)), None, NOW);
        assert!(of(json!({"aud": null, "iss": null})).is_ok());
        assert!(of(json!({})).is_err());
    }

    #[test]
    fn the_header_chooses_neither_key_nor_rules() {
        let good = claims(&json!({}));
        let foreign = Header {
            jku: Some("https://evil.example/jwks".into()),
            x5u: Some("https://evil.example/x".into()),
            kid: Some("any".into()),
            ..Header::default()
        };
        assert!(rules().verify(&token(&foreign, &good), None, NOW).is_ok(), "what it says of keys is not looked at");
        let critical = Header { crit: Some(vec!["b64".into()]), ..Header::default() };
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(good.to_string()));
        let whole = token(&Header::default(), &good);
        let (signed, _) = whole.rsplit_once('.').expect("three parts");
        let longer = encode(&Header::new(Algorithm::HS512), &good, &EncodingKey::from_secret(SECRET)).expect("signed");
        for bad in [
            token(&critical, &good),
            none,
            longer,
            signed.to_owned(),
            format!("{signed}."),
            format!("{whole}x"),
            format!("{whole}.x"),
            format!("{whole}, {whole}"),
            encode(&Header::default(), &good, &EncodingKey::from_secret(b"another secret, of 32 bytes or so")).expect("signed"),
            token(&Header::default(), &json!(["no", "object"])),
            "megan".to_owned(),
            "..".to_owned(),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert!(matches!(rules().verify(&bad, None, NOW), Err(Unproved::Invalid(_))), "{bad}");
        }
    }

    proptest! {
        /// Whatever stands in the header: an answer, no panic, and no name that was not signed.
        #[test]
        fn no_text_that_was_not_signed_names_anybody(text in "[ -~]{0,200}", alg in "HS256|RS256|ES256|EdDSA|none|", claims in "\\PC{0,100}") {
            let made = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\"}}")), URL_SAFE_NO_PAD.encode(&claims), text);
            let set = KeySet::parse(br#"{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#).expect("a set");
            let published = JwtRules { keys: Keys::Published(Published::new("https://id.example/".parse().expect("a URL"))), algorithms: vec![Algorithm::ES256, Algorithm::RS256], ..rules() };
            for rules in [rules(), published] {
                prop_assert!(rules.verify(&text, Some(&set), NOW).is_err());
                prop_assert!(rules.verify(&made, Some(&set), NOW).is_err());
            }
        }

        /// Signed by the right key, with any JSON as the claims: at most a clean name.
        #[test]
        fn whatever_is_signed_names_a_clean_name_or_nobody(sub in "\\PC{0,300}", exp in any::<f64>(), nbf in any::<i64>()) {
            let token = token(&Header::default(), &claims(&json!({"sub": sub, "exp": exp, "nbf": nbf})));
            if let Ok(proved) = rules().verify(&token, None, NOW) {
                prop_assert_eq!(check_name(&proved.name), Ok(()));
                prop_assert!(proved.until >= NOW);
            }
        }
    }
}
