//! The end user of a call as signed tokens prove it (`end_user.jwt`): each token is verified once a worker, and then known until it ends.

use super::error::ProxyError;
use crate::base::clock::UnixMillis;
use crate::identity::keyset::{Fetched, Want};
use crate::identity::{JwtRules, KeySet, Keys, Tokens, Unproved};
use crate::oauth::KeySets;
use aws_lc_rs::digest::{SHA256, digest};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Tokens that one worker knows as proved; past it the oldest goes.
const KNOWN_MAX: usize = 1024;

/// One worker's knowledge of proved tokens. Only tokens that hold come in, so that made-up ones push nobody's out.
#[derive(Debug)]
pub(super) struct Proofs {
    key_sets: KeySets,
    known: RefCell<Known>,
}

/// By the hash of the token: no token is kept.
#[derive(Debug, Default)]
struct Known {
    /// What they were proved by; with other rules or keys none of it holds.
    rules: Option<Arc<JwtRules>>,
    keys: Option<Arc<KeySet>>,
    names: HashMap<[u8; 32], Name>,
    order: VecDeque<[u8; 32]>,
}

#[derive(Debug)]
struct Name {
    name: Rc<str>,
    until: UnixMillis,
}

/// Why a call's end user is not proved yet.
enum Wait {
    Never(ProxyError),
    /// The keys must come first.
    For(Want),
}

impl Proofs {
    pub(super) fn new(key_sets: KeySets) -> Proofs {
        Proofs { key_sets, known: RefCell::default() }
    }

    /// Whom the call's tokens name. Awaits nothing but keys that are not there: the first ones, or one that the issuer may have begun to use.
    pub(super) async fn prove(&self, rules: &Arc<JwtRules>, tokens: Tokens<'_>) -> Result<Rc<str>, ProxyError> {
        let mut waited = None;
        loop {
            match (self.both(rules, tokens), &rules.keys) {
                (Ok(name), _) => return Ok(name),
                (Err(Wait::Never(error)), _) => return Err(error),
                (Err(Wait::For(want)), Keys::Published(published)) if waited != Some(want) => {
                    waited = Some(want);
                    self.key_sets.newer(published, want).await;
                }
                (Err(Wait::For(Want::Fresh)), _) => return Err(ProxyError::KeysUnavailable),
                (Err(Wait::For(Want::UnknownKey)), _) => {
                    return Err(ProxyError::EndUserInvalid("its token is signed by a key that the issuer does not publish"));
                }
            }
        }
    }

    /// The one name of one token or two.
    fn both(&self, rules: &Arc<JwtRules>, tokens: Tokens<'_>) -> Result<Rc<str>, Wait> {
        let now = self.key_sets.now();
        let name = self.one(rules, tokens.one, now)?;
        match tokens.other.map(|other| self.one(rules, other, now)).transpose()? {
            Some(other) if other != name => {
                Err(Wait::Never(ProxyError::EndUserInvalid("the header's token and the placeholder's name two people")))
            }
            _ => Ok(name),
        }
    }

    fn one(&self, rules: &Arc<JwtRules>, token: &str, now: UnixMillis) -> Result<Rc<str>, Wait> {
        let loaded = match &rules.keys {
            Keys::Secret(_) => None,
            Keys::Published(published) => {
                let loaded = published.load(now).ok_or(Wait::For(Want::Fresh))?;
                if let Some(fetched) = &*loaded {
                    self.key_sets.freshen(published, fetched, now);
                }
                Some(loaded)
            }
        };
        let fetched: Option<&Fetched> = loaded.as_ref().and_then(|loaded| loaded.as_deref());
        let keys = fetched.map(|fetched| &fetched.keys);
        let mut known = self.known.borrow_mut();
        known.hold(rules, keys);
        let mut print = [0; 32];
        print.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(name) = known.names.get(&print).filter(|name| now < name.until) {
            return Ok(Rc::clone(&name.name));
        }
        let proved = rules.verify(token, keys.map(|keys| &**keys), now).map_err(|unproved| match unproved {
            Unproved::Invalid(why) => Wait::Never(ProxyError::EndUserInvalid(why)),
            Unproved::UnknownKey => Wait::For(Want::UnknownKey),
        })?;
        let name: Rc<str> = proved.name.into();
        known.keep(print, Name { name: Rc::clone(&name), until: proved.until });
        Ok(name)
    }
}

impl Known {
    /// Forgets all that other rules or keys proved.
    fn hold(&mut self, rules: &Arc<JwtRules>, keys: Option<&Arc<KeySet>>) {
        let same_rules = self.rules.as_ref().is_some_and(|held| Arc::ptr_eq(held, rules));
        let same_keys = match (&self.keys, keys) {
            (Some(held), Some(keys)) => Arc::ptr_eq(held, keys),
            (None, None) => true,
            _ => false,
        };
        if !same_rules || !same_keys {
            *self = Known { rules: Some(Arc::clone(rules)), keys: keys.cloned(), ..Known::default() };
        }
    }

    fn keep(&mut self, print: [u8; 32], name: Name) {
        if self.names.insert(print, name).is_some() {
            return;
        }
        self.order.push_back(print);
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jwt::SecretKey;
    use jsonwebtoken::Algorithm;

    fn rules() -> Arc<JwtRules> {
        let keys = Keys::Secret(SecretKey::new(b"0123456789abcdef0123456789abcdef"));
        Arc::new(JwtRules { keys, algorithms: vec![Algorithm::HS256], audiences: Vec::new(), issuer: None, claim: "sub".into() })
    }

    fn print(number: u32) -> [u8; 32] {
        let mut print = [0; 32];
        print[..4].copy_from_slice(&number.to_be_bytes());
        print
    }

    fn name() -> Name {
        Name { name: "megan".into(), until: UnixMillis(1) }
    }

    /// Without the cap it grows; without `hold`, what old rules proved would live on.
    #[test]
    fn the_oldest_goes_and_nothing_outlives_its_rules() {
        let rules = rules();
        let mut known = Known::default();
        known.hold(&rules, None);
        for number in 0..3000 {
            known.keep(print(number), name());
            known.keep(print(number), name());
        }
        assert_eq!((known.names.len(), known.order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert!(known.names.contains_key(&print(2999)) && !known.names.contains_key(&print(1900)));
        known.hold(&rules, None);
        assert_eq!(known.names.len(), KNOWN_MAX);
        known.hold(&self::rules(), None);
        assert_eq!((known.names.len(), known.order.len()), (0, 0));
    }
}
