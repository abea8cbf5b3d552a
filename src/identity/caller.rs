//! Which client app is calling, by the key it shows or the user id behind its unix socket, and what it may call.

use crate::base::digest::sha256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, PROXY_AUTHORIZATION};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Where a caller shows its key; `Proxy-Authorization` is the other place (contract §2).
pub const KEY_HEADER: HeaderName = HeaderName::from_static("x-attache-key");

/// The longest key looked at.
const KEY_BYTES_MAX: usize = 1024;

/// Who may call. Empty: anyone who reaches the listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callers(pub Vec<Caller>);

/// One client app. Where several conditions stand, all must fit.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: Box<str>,
    pub key_sha256: Option<[u8; 32]>,
    /// The user id of the peer on a unix socket.
    pub uid: Option<u32>,
    /// The subject alternative names of its certificate, any of which is enough; DNS names in lower case.
    pub cert_sans: Vec<Box<str>>,
    /// The routes it may call; `None` is all.
    pub routes: Option<Vec<Box<str>>>,
    /// The providers whose tokens it may use; `None` is all.
    pub providers: Option<Vec<Box<str>>>,
}

/// What a connection itself says of who is behind it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behind<'p> {
    /// The peer's user id, on a unix socket.
    pub uid: Option<u32>,
    /// The names in its verified certificate, DNS names in lower case.
    pub cert_sans: &'p [Box<str>],
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.name)
    }
}

/// The caller is none of those that may call. The same words for a wrong key and none, so that nothing is learned from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller showed no key that is known here")]
pub struct CallerRefused;

impl Callers {
    /// Whether any of them is known by a key.
    pub fn have_keys(&self) -> bool {
        self.0.iter().any(|caller| caller.key_sha256.is_some())
    }

    /// Whether that is the key of one of them.
    pub fn has_key(&self, key: &str) -> bool {
        let shown = sha256(key.as_bytes());
        // Every caller is compared, so that the time taken does not tell which one fits.
        self.0.iter().filter_map(|caller| caller.key_sha256).fold(false, |found, known| bool::from(known.ct_eq(&shown)) | found)
    }

    /// The caller of a request: `None` where no callers are named and anyone may call.
    ///
    /// # Errors
    /// When callers are named and this is none of them.
    pub fn identify(&self, headers: &HeaderMap, behind: Behind<'_>) -> Result<Option<&Caller>, CallerRefused> {
        self.identify_with(headers, behind, None)
    }

    /// The same of a request that may show its key in a third place, a placeholder. Two places with different keys are refused.
    ///
    /// # Errors
    /// As [`Callers::identify`].
    pub fn identify_with(
        &self,
        headers: &HeaderMap,
        behind: Behind<'_>,
        placeholder_key: Option<&str>,
    ) -> Result<Option<&Caller>, CallerRefused> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let shown = match (shown_hash(headers)?, placeholder_key.map(|key| sha256(key.as_bytes()))) {
            (Some(shown), Some(also)) if shown != also => return Err(CallerRefused),
            (shown, also) => shown.or(also),
        };
        // Every caller is compared, so that the time taken does not tell which one fits.
        let mut found = None;
        for caller in &self.0 {
            let key_fits = match (&caller.key_sha256, &shown) {
                (Some(known), Some(shown)) => bool::from(known.ct_eq(shown)),
                (Some(_), None) => false,
                (None, _) => true,
            };
            let uid_fits = caller.uid.is_none_or(|uid| behind.uid == Some(uid));
            let cert_fits = caller.cert_sans.is_empty() || caller.cert_sans.iter().any(|san| behind.cert_sans.contains(san));
            let by_something = caller.key_sha256.is_some() || caller.uid.is_some() || !caller.cert_sans.is_empty();
            if key_fits && uid_fits && cert_fits && by_something && found.is_none() {
                found = Some(caller);
            }
        }
        // A key that was shown and fits nobody is a mistake to tell, even where the user id alone would do.
        let key_known =
            shown.is_none_or(|shown| self.0.iter().any(|caller| caller.key_sha256.is_some_and(|known| known.ct_eq(&shown).into())));
        found.filter(|_| key_known).map(Some).ok_or(CallerRefused)
    }
}

impl Caller {
    /// Whether it may call that route with that provider's tokens.
    pub fn may(&self, route: &str, provider: Option<&str>) -> bool {
        let takes = |list: &Option<Vec<Box<str>>>, name: &str| list.as_ref().is_none_or(|names| names.iter().any(|known| **known == *name));
        takes(&self.routes, route) && provider.is_none_or(|provider| takes(&self.providers, provider))
    }
}

/// The hash of the one key shown, wherever it is shown. Two different places or lines are refused rather than chosen from.
fn shown_hash(headers: &HeaderMap) -> Result<Option<[u8; 32]>, CallerRefused> {
    let mut plain = headers.get_all(&KEY_HEADER).iter();
    let mut proxy = headers.get_all(PROXY_AUTHORIZATION).iter();
    let hash = match (plain.next(), proxy.next()) {
        (None, None) => return Ok(None),
        (Some(key), None) => sha256(key.as_bytes()),
        (None, Some(credentials)) => proxy_key_hash(credentials.as_bytes()).ok_or(CallerRefused)?,
        (Some(key), Some(credentials)) => {
            let hash = sha256(key.as_bytes());
            if proxy_key_hash(credentials.as_bytes()) != Some(hash) {
                return Err(CallerRefused);
            }
            hash
        }
    };
    if plain.next().is_some() || proxy.next().is_some() { Err(CallerRefused) } else { Ok(Some(hash)) }
}

/// `Bearer KEY`, or the password of `Basic` (RFC 7617 §2).
fn proxy_key_hash(credentials: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(credentials).ok().filter(|text| text.len() <= KEY_BYTES_MAX)?;
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(sha256(rest.as_bytes()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(sha256(&pair[colon + 1..]));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn caller(name: &str, key: Option<&str>, uid: Option<u32>) -> Caller {
        Caller {
            name: name.into(),
            key_sha256: key.map(|key| sha256(key.as_bytes())),
            uid,
            cert_sans: Vec::new(),
            routes: None,
            providers: None,
        }
    }

    fn check(lines: &[(&'static str, &str)], peer_uid: Option<u32>, expected: Result<&str, CallerRefused>) {
        let callers =
            Callers(vec![caller("app", Some("k-app"), None), caller("job", Some("k-job"), Some(7)), caller("user", None, Some(1000))]);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let found = callers
            .identify(&headers, Behind { uid: peer_uid, ..Behind::default() })
            .map(|caller| caller.map_or("anyone", |caller| &*caller.name));
        assert_eq!(found, expected, "{lines:?} {peer_uid:?}");
    }

    #[test]
    fn knows_a_caller_by_key_or_user_id() {
        check(&[("x-attache-key", "k-app")], None, Ok("app"));
        check(&[("proxy-authorization", "Bearer k-app")], None, Ok("app"));
        check(&[("proxy-authorization", "bearer k-app")], Some(5), Ok("app"));
        let basic = format!("Basic {}", STANDARD.encode("anything:k-app"));
        check(&[("proxy-authorization", &basic)], None, Ok("app"));
        check(&[], Some(1000), Ok("user"));
        check(&[("x-attache-key", "k-job")], Some(7), Ok("job"));
        check(&[("x-attache-key", "k-app"), ("proxy-authorization", "Bearer k-app")], None, Ok("app"));
    }

    #[test]
    fn refuses_everyone_else() {
        for (lines, uid) in [
            (&[][..], None),
            (&[][..], Some(0)),
            (&[("x-attache-key", "")][..], None),
            (&[("x-attache-key", "k-ap")][..], None),
            (&[("x-attache-key", "wrong")][..], Some(1000)),
            (&[("x-attache-key", "k-job")][..], None),
            (&[("x-attache-key", "k-job")][..], Some(8)),
            (&[("x-attache-key", "k-app"), ("x-attache-key", "k-app")][..], None),
            (&[("x-attache-key", "k-app"), ("proxy-authorization", "Bearer other")][..], None),
            (&[("proxy-authorization", "Basic !!!")][..], None),
            (&[("proxy-authorization", "Digest k-app")][..], None),
            (&[("authorization", "Bearer k-app")][..], None),
        ] {
            check(lines, uid, Err(CallerRefused));
        }
    }

    #[test]
    fn all_conditions_of_a_caller_must_fit() {
        let mut both = caller("both", Some("k"), Some(7));
        both.cert_sans = vec!["app.internal".into(), "spiffe://prod/app".into()];
        let mut cert = caller("cert", None, None);
        cert.cert_sans = vec!["job.internal".into()];
        let callers = Callers(vec![both, cert]);
        let check = |key: Option<&'static str>, uid, sans: &[&str], expected: Option<&str>| {
            let sans: Vec<Box<str>> = sans.iter().map(|san| Box::from(*san)).collect();
            let headers: HeaderMap = key.map(|key| (KEY_HEADER, HeaderValue::from_static(key))).into_iter().collect();
            let found = callers.identify(&headers, Behind { uid, cert_sans: &sans }).ok().flatten();
            assert_eq!(found.map(|caller| &*caller.name), expected, "{key:?} {uid:?} {sans:?}");
        };
        check(Some("k"), Some(7), &["x", "spiffe://prod/app"], Some("both"));
        check(None, None, &["job.internal"], Some("cert"));
        check(Some("k"), Some(7), &[], None);
        check(Some("k"), None, &["app.internal"], None);
        check(None, Some(7), &["app.internal"], None);
        check(None, None, &["spiffe://prod/ap", "internal", "x.job.internal"], None);
        check(Some("wrong"), None, &["job.internal"], None);
    }

    #[test]
    fn a_placeholder_shows_a_key_like_any_other_place() {
        let callers = Callers(vec![caller("app", Some("k-app"), None)]);
        let mut headers = HeaderMap::new();
        let found = callers.identify_with(&headers, Behind::default(), Some("k-app")).map(|caller| caller.map(|caller| &*caller.name));
        assert_eq!(found, Ok(Some("app")));
        assert_eq!(callers.identify_with(&headers, Behind::default(), Some("other")), Err(CallerRefused));
        headers.insert(KEY_HEADER, HeaderValue::from_static("k-app"));
        assert!(callers.identify_with(&headers, Behind::default(), Some("k-app")).is_ok());
        assert_eq!(callers.identify_with(&headers, Behind::default(), Some("other")), Err(CallerRefused));
    }

    #[test]
    fn without_callers_anyone_calls() {
        assert_eq!(Callers::default().identify(&HeaderMap::new(), Behind::default()), Ok(None));
    }

    #[test]
    fn a_caller_is_kept_to_its_lists() {
        let all = caller("a", Some("k"), None);
        assert!(all.may("list", Some("google")) && all.may("list", None));
        let narrow = Caller { routes: Some(vec!["list".into()]), providers: Some(vec!["google".into()]), ..all };
        assert!(narrow.may("list", Some("google")) && narrow.may("list", None));
        assert!(!narrow.may("other", Some("google")) && !narrow.may("list", Some("dropbox")));
    }
}
