//! The public keys by which end users' tokens are verified (RFC 7517), as read from the published set and as workers see it.

use crate::base::clock::UnixMillis;
use crate::base::digest::sha256;
use arc_swap::{ArcSwapOption, Guard};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use url::Url;

/// The most keys of a set that are looked at.
const KEYS_MAX: usize = 100;

/// After how long a set is fetched anew, in the background of the next call.
pub const FRESH_FOR: Duration = Duration::from_secs(10 * 60);

/// How long a set serves that cannot be fetched anew.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// The pause between two fetches for the sake of a key that is not in the set: made-up names of keys must not hammer the issuer.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(60);

/// The pause after a fetch that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// Why a document is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoKeySet(&'static str);

/// The keys of one document.
pub struct KeySet {
    keys: Vec<PublicKey>,
    /// The document's fingerprint.
    print: [u8; 32],
}

pub(super) struct PublicKey {
    kid: Option<Box<str>>,
    /// The one algorithm that the key says it is for, or that its curve leaves.
    algorithm: Option<Algorithm>,
    pub(super) key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set. Keys that we do not know, secret ones, and those for encryption are left out (RFC 7517 §5). One without any key is one
    /// all the same: that is how an issuer withdraws its last.
    ///
    /// # Errors
    /// When it is no JWK set.
    pub fn parse(document: &[u8]) -> Result<KeySet, NoKeySet> {
        // The parser's own error may hold a piece of the text.
        let set: Value = serde_json::from_slice(document).map_err(|_| NoKeySet("it is not JSON"))?;
        let keys = set["keys"].as_array().ok_or(NoKeySet("it holds no list of `keys`"))?;
        let keys: Vec<PublicKey> = keys.iter().take(KEYS_MAX).filter_map(PublicKey::read).collect();
        Ok(KeySet { keys, print: sha256(document) })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have made a signature of that algorithm under that name; those of any name where the token gives none.
    pub(super) fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(move |key| (kid.is_none() || key.kid.as_deref() == kid) && key.makes(algorithm))
    }

    /// Whether there is a key of that name, of whatever kind.
    pub(super) fn knows(&self, kid: Option<&str>) -> bool {
        kid.is_none() || self.keys.iter().any(|key| key.kid.as_deref() == kid)
    }
}

impl PublicKey {
    fn read(key: &Value) -> Option<PublicKey> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let for_signatures = match (&jwk.common.public_key_use, &jwk.common.key_operations) {
            (None | Some(PublicKeyUse::Signature), None) => true,
            (None | Some(PublicKeyUse::Signature), Some(operations)) => operations.contains(&KeyOperations::Verify),
            (Some(_), _) => false,
        };
        let of_curve = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => None,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Some(Algorithm::ES256),
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => Some(Algorithm::ES384),
            AlgorithmParameters::OctetKeyPair(curve) if curve.curve == EllipticCurve::Ed25519 => Some(Algorithm::EdDSA),
            // A secret that is published is none (RFC 8725 §3.1), and other kinds are not known.
            _ => return None,
        };
        let said = match jwk.common.key_algorithm {
            // RFC 9864's name for the same.
            Some(KeyAlgorithm::UNKNOWN_ALGORITHM) if key["alg"] == "Ed25519" => Some(Algorithm::EdDSA),
            Some(said) => Some(Algorithm::try_from(said).ok()?),
            None => None,
        };
        if matches!((said, of_curve), (Some(said), Some(of_curve)) if said != of_curve) || !for_signatures {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(PublicKey { kid: jwk.common.key_id.map(Into::into), algorithm: said.or(of_curve), key })
    }

    fn makes(&self, algorithm: Algorithm) -> bool {
        match self.algorithm {
            Some(own) => own == algorithm,
            None => self.key.family() == AlgorithmFamily::Rsa && AlgorithmFamily::Rsa.algorithms().contains(&algorithm),
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

/// A set as it was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The same `Arc` as before where the document did not change.
    pub keys: Arc<KeySet>,
    pub at: UnixMillis,
}

/// The place of a published set: its URL, and what was last fetched from there. Workers only read; who fetches is another room's.
#[derive(Debug)]
pub struct Published {
    pub url: Url,
    held: ArcSwapOption<Fetched>,
    fetching: Mutex<Fetching>,
}

#[derive(Debug, Default)]
struct Fetching {
    /// Closed when the fetch that it stands for has ended.
    flight: Option<watch::Receiver<()>>,
    failed_at: Option<UnixMillis>,
    asked_at: Option<UnixMillis>,
}

/// Why a set is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// There is none, or the one that is there is old.
    Fresh,
    /// A token names a key that is not in it.
    UnknownKey,
}

/// What became of a wish for a newer set.
#[derive(Debug)]
pub enum Flight {
    /// The caller is to fetch, and to keep the sender until that is done.
    Yours(watch::Sender<()>, watch::Receiver<()>),
    Under(watch::Receiver<()>),
    /// It is too soon for another fetch.
    Paused,
}

impl Published {
    pub fn new(url: Url) -> Arc<Published> {
        Arc::new(Published { url, held: ArcSwapOption::empty(), fetching: Mutex::default() })
    }

    /// What is there, without a lock; `None` also for a set that is too old to be trusted.
    pub fn load(&self, now: UnixMillis) -> Option<Guard<Option<Arc<Fetched>>>> {
        let held = self.held.load();
        let usable = held.as_ref().is_some_and(|fetched| now.since(fetched.at) < KEPT_FOR);
        usable.then_some(held)
    }

    /// Asks for a newer set. At most one fetch is under way.
    pub fn want(&self, want: Want, now: UnixMillis) -> Flight {
        let mut fetching = self.fetching();
        // An error is a sender that is gone: the fetch has ended, or broke off.
        if let Some(flight) = fetching.flight.clone().filter(|flight| flight.has_changed().is_ok()) {
            return Flight::Under(flight);
        }
        // A clock that was set back has no part in it.
        let within = |at: Option<UnixMillis>, span: Duration| at.is_some_and(|at| at <= now && now.since(at) < span);
        if within(fetching.failed_at, FAILURE_PAUSE) || want == Want::UnknownKey && within(fetching.asked_at, UNKNOWN_KEY_PAUSE) {
            return Flight::Paused;
        }
        if want == Want::UnknownKey {
            fetching.asked_at = Some(now);
        }
        let (sender, receiver) = watch::channel(());
        fetching.flight = Some(receiver.clone());
        Flight::Yours(sender, receiver)
    }

    /// Keeps what a fetch brought.
    pub fn keep(&self, set: KeySet, now: UnixMillis) {
        let same = self.held.load().as_ref().map(|fetched| Arc::clone(&fetched.keys)).filter(|keys| keys.print == set.print);
        self.held.store(Some(Arc::new(Fetched { keys: same.unwrap_or_else(|| Arc::new(set)), at: now })));
        self.fetching().failed_at = None;
    }

    pub fn failed(&self, now: UnixMillis) {
        self.fetching().failed_at = Some(now);
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const AT: UnixMillis = UnixMillis(1_767_225_600_000);

    fn later(seconds: u64) -> UnixMillis {
        AT.plus(Duration::from_secs(seconds))
    }

    fn ec(extra: &Value) -> Value {
        // RFC 7517 Appendix A.1.
        let mut key = json!({"kty": "EC", "crv": "P-256", "kid": "1", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"});
        key.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        key
    }

    #[test]
    fn keys_that_verify_nothing_are_left_out_and_hide_no_other() {
        let good = ec(&json!({"use": "sig", "alg": "ES256"}));
        let bad = [
            ec(&json!({"use": "enc"})),
            ec(&json!({"key_ops": ["encrypt"]})),
            ec(&json!({"alg": "ES384"})),
            ec(&json!({"alg": "ECDH-ES"})),
            json!({"kty": "oct", "kid": "1", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}),
            json!({"kty": "FUTURE", "kid": "1"}),
            json!("no key"),
        ];
        for key in bad {
            let alone = json!({"keys": [key]}).to_string();
            assert!(KeySet::parse(alone.as_bytes()).is_ok_and(|set| set.is_empty()), "{alone}");
            let set = KeySet::parse(json!({"keys": [key, good]}).to_string().as_bytes()).expect("the good one");
            assert_eq!(set.keys.len(), 1);
        }
        for text in ["", "[]", "{}", "{\"keys\": {}}", "<html>"] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
        let set = KeySet::parse(json!({"keys": [good]}).to_string().as_bytes()).expect("a set");
        assert_eq!(set.candidates(Some("1"), Algorithm::ES256).count(), 1);
        assert_eq!(set.candidates(None, Algorithm::ES256).count(), 1);
        assert_eq!(set.candidates(Some("2"), Algorithm::ES256).count(), 0);
        for other in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES384] {
            assert_eq!(set.candidates(Some("1"), other).count(), 0, "{other:?}");
        }
    }

    /// `UNKNOWN_KEY_PAUSE` and `FAILURE_PAUSE`, taken out, make it fail.
    #[test]
    fn one_fetch_at_a_time_and_none_too_soon() {
        let published = Published::new("https://id.example/jwks".parse().expect("a URL"));
        let Flight::Yours(flight, _) = published.want(Want::Fresh, AT) else { panic!("the first one fetches") };
        assert!(matches!(published.want(Want::UnknownKey, AT), Flight::Under(_)));
        published.failed(AT);
        drop(flight);
        assert!(matches!(published.want(Want::Fresh, later(9)), Flight::Paused));
        assert!(matches!(published.want(Want::Fresh, later(10)), Flight::Yours(..)));
        let set = || KeySet::parse(json!({"keys": [ec(&json!({}))]}).to_string().as_bytes()).expect("a set");
        published.keep(set(), later(10));
        assert!(matches!(published.want(Want::UnknownKey, later(10)), Flight::Yours(..)));
        for (seconds, paused) in [(11, true), (69, true), (70, false), (71, true)] {
            assert_eq!(matches!(published.want(Want::UnknownKey, later(seconds)), Flight::Paused), paused, "{seconds}");
        }
        assert!(matches!(published.want(Want::Fresh, later(71)), Flight::Yours(..)));
        assert!(matches!(published.want(Want::UnknownKey, AT), Flight::Yours(..)), "a clock set back stops nothing");
    }

    #[test]
    fn a_set_that_did_not_change_stays_the_same_one_and_an_old_one_ends() {
        let published = Published::new("https://id.example/jwks".parse().expect("a URL"));
        assert!(published.load(AT).is_none());
        let keep = |kid: &str, at| {
            published.keep(KeySet::parse(json!({"keys": [ec(&json!({"kid": kid}))]}).to_string().as_bytes()).expect("a set"), at)
        };
        let held = |at| published.load(at).and_then(|held| held.as_ref().map(|fetched| Arc::clone(&fetched.keys)));
        keep("1", AT);
        let first = held(AT).expect("kept");
        keep("1", later(60));
        assert!(Arc::ptr_eq(&first, &held(later(60)).expect("kept")));
        keep("2", later(61));
        assert!(!Arc::ptr_eq(&first, &held(later(61)).expect("kept")));
        assert!(held(later(61 + 86_399)).is_some());
        assert!(held(later(61 + 86_400)).is_none());
    }
}
