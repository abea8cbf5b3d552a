//! Names of things: connection keys and ids, and the random text behind ids, states and keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The account label of a connection that was given none (contract §1).
pub const DEFAULT_ACCOUNT: &str = "default";

/// `N` bytes from the operating system's random source.
///
/// # Panics
/// If that source fails, which leaves no safe way to go on.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    #[expect(clippy::expect_used, reason = "without a random source no id, nonce or key can be made safely")]
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system's random source works");
    bytes
}

/// 256 random bits as 43 characters of base64url: states, session ids, PKCE verifiers.
pub fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

/// 128 random bits as 22 characters of base64url, after a prefix that says what it names.
pub fn random_id(prefix: &str) -> String {
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(random_bytes::<16>()))
}

/// Which connection: one end user's grant at one provider registration under one account label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// The provider's registration id in `routes.yaml`, which is what two registrations of one definition differ in.
    pub provider: Box<str>,
    pub end_user: Box<str>,
    pub account: Box<str>,
}

/// The same, borrowed: what the hot path looks up with, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectionKeyRef<'a> {
    pub provider: &'a str,
    pub end_user: &'a str,
    pub account: &'a str,
}

impl ConnectionKey {
    pub fn new(provider: &str, end_user: &str, account: &str) -> Self {
        ConnectionKey { provider: provider.into(), end_user: end_user.into(), account: account.into() }
    }

    /// The app's own connection to a provider. Its end user is the empty name, which no end user can have (P73), so that it collides with
    /// nobody's and no caller can name it.
    pub fn app(provider: &str) -> Self {
        ConnectionKeyRef::app(provider).to_owned()
    }

    pub fn is_app(&self) -> bool {
        self.borrow().is_app()
    }

    pub fn borrow(&self) -> ConnectionKeyRef<'_> {
        ConnectionKeyRef { provider: &self.provider, end_user: &self.end_user, account: &self.account }
    }

    /// The key's bytes in a store: the three parts, each closed by a zero byte, so that `provider\0` and `provider\0user\0` are prefixes of
    /// what they name. No part may hold a zero byte: identity and config refuse control bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.provider.len() + self.end_user.len() + self.account.len() + 3);
        for part in [&self.provider, &self.end_user, &self.account] {
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let mut next = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        let key = ConnectionKey::new(next()?, next()?, next()?);
        parts.next().is_none().then_some(key)
    }
}

impl<'a> ConnectionKeyRef<'a> {
    /// As [`ConnectionKey::app`].
    pub fn app(provider: &'a str) -> Self {
        ConnectionKeyRef { provider, end_user: "", account: DEFAULT_ACCOUNT }
    }

    pub fn is_app(&self) -> bool {
        self.end_user.is_empty()
    }

    pub fn to_owned(self) -> ConnectionKey {
        ConnectionKey::new(self.provider, self.end_user, self.account)
    }
}

impl Hash for ConnectionKeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.provider.hash(state);
        self.end_user.hash(state);
        self.account.hash(state);
    }
}

impl Hash for ConnectionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl equivalent::Equivalent<ConnectionKey> for ConnectionKeyRef<'_> {
    fn equivalent(&self, key: &ConnectionKey) -> bool {
        *self == key.borrow()
    }
}

/// Shows the provider and account alone: the end user's name is personal and stays out of logs.
impl fmt::Debug for ConnectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionKey({}/…/{})", self.provider, self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_bytes_round_trip_and_stay_apart() {
        let key = ConnectionKey::new("google", "megan@personalemail.com", "default");
        assert_eq!(ConnectionKey::from_bytes(&key.to_bytes()), Some(key.clone()));
        assert_ne!(key.to_bytes(), ConnectionKey::new("google", "megan@personalemail.comd", "efault").to_bytes());
        assert_eq!(ConnectionKey::from_bytes(b"google\0megan\0"), None);
        assert_eq!(ConnectionKey::from_bytes(b"a\0b\0c\0d\0"), None);
    }

    #[test]
    fn the_apps_own_key_is_nobodys() {
        let app = ConnectionKey::app("google");
        assert!(app.is_app() && !ConnectionKey::new("google", "default", "default").is_app());
        assert_eq!(ConnectionKey::from_bytes(&app.to_bytes()), Some(app.clone()));
        assert_ne!(app.to_bytes(), ConnectionKey::new("google", "default", "").to_bytes());
    }

    #[test]
    fn owned_and_borrowed_keys_hash_alike() {
        use std::hash::BuildHasher;
        let state = std::hash::RandomState::new();
        let key = ConnectionKey::new("google", "megan@personalemail.com", "work");
        assert_eq!(state.hash_one(&key), state.hash_one(key.borrow()));
    }

    #[test]
    fn random_ids_differ_and_keep_their_length() {
        assert_ne!(random_token(), random_token());
        assert_eq!(random_token().len(), 43);
        assert_eq!(random_id("con").len(), 26);
    }
}
