//! Who calls the admin API: by token, by a browser's login, or by the user id at the other end of a unix socket.

use super::Admin;
use crate::base::clock::UnixMillis;
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::config::AdminToken;
use crate::connect::session::Digest;
use crate::server::control::ControlPeer;
use crate::server::public::cookies;
use cookie::{Cookie, SameSite};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a browser stays logged in (contract §6).
const LOGIN_FOR: Duration = Duration::from_secs(12 * 3600);
/// How many browsers may be logged in at once; past it the oldest is logged out.
const LOGINS_MAX: usize = 256;
const COOKIE: &str = "attache_admin";

/// Who it is, and what they may do.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) name: Box<str>,
    pub(super) allow: Vec<Box<str>>,
    /// By a cookie, which a browser sends whoever's page asks: then the page must be ours.
    pub(super) by_cookie: bool,
}

impl Who {
    pub(super) fn may(&self, word: &str) -> bool {
        self.allow.iter().any(|allowed| **allowed == *word)
    }
}

/// The browsers that are logged in. In memory alone: a restart logs them out.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<Vec<Login>>);

#[derive(Debug)]
struct Login {
    cookie: Digest,
    who: Who,
    until: UnixMillis,
}

impl Admin {
    /// Who this request is of; `None` without a valid token, login or peer.
    pub(super) fn who(&self, peer: &ControlPeer, headers: &HeaderMap) -> Option<Who> {
        if headers.contains_key(AUTHORIZATION) {
            return self.by_token(headers);
        }
        if let Some(cookie) = cookies(headers).get(COOKIE) {
            return self.logins.find(cookie, self.clock.now());
        }
        let uid = peer.uid?;
        self.peers.contains(&uid).then(|| Who { name: format!("uid {uid}").into(), allow: default_allow(), by_cookie: false })
    }

    fn by_token(&self, headers: &HeaderMap) -> Option<Who> {
        let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        self.token(given).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
    }

    /// The token that this text is. Every one is compared, so that the time tells nothing of which was close (THREATS row 27).
    fn token(&self, given: &str) -> Option<Who> {
        let given = Digest::of(given);
        let mut known = None;
        for (digest, token) in &self.tokens {
            if *digest == given {
                known = Some(token);
            }
        }
        known.map(|token| Who { name: token.name.clone(), allow: token.allow.clone(), by_cookie: false })
    }

    /// Logs a browser in: its cookie, if the token is one.
    pub(super) fn log_in(&self, token: &str) -> Option<Cookie<'static>> {
        let who = self.token(token)?;
        let value = Secret::new(random_token());
        let until = self.clock.now().plus(LOGIN_FOR);
        tracing::info!(admin.token = %who.name, "a browser logged in to the admin listener");
        self.logins.add(Login { cookie: Digest::of(value.expose()), who: Who { by_cookie: true, ..who }, until });
        Some(cookie(value.expose(), i64::try_from(LOGIN_FOR.as_secs()).unwrap_or(i64::MAX)))
    }

    pub(super) fn log_out(&self, headers: &HeaderMap) -> Cookie<'static> {
        if let Some(value) = cookies(headers).get(COOKIE) {
            self.logins.remove(value);
        }
        cookie("", 0)
    }
}

impl Logins {
    fn find(&self, value: &str, now: UnixMillis) -> Option<Who> {
        let logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logins.iter().find(|login| login.cookie.fits(value) && now < login.until).map(|login| login.who.clone())
    }

    fn add(&self, login: Login) {
        let mut logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logins.len() >= LOGINS_MAX {
            logins.remove(0);
        }
        logins.push(login);
    }

    fn remove(&self, value: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|login| !login.cookie.fits(value));
    }
}

fn cookie(value: &str, max_age_s: i64) -> Cookie<'static> {
    let built = Cookie::build((COOKIE, value.to_owned())).path("/").http_only(true).same_site(SameSite::Strict);
    built.max_age(cookie::time::Duration::seconds(max_age_s)).build()
}

/// What a token may do that says nothing else: all but read users' tokens.
pub(super) fn default_allow() -> Vec<Box<str>> {
    ["connect", "read", "write"].map(Into::into).into()
}

/// The digests of the tokens, made once.
pub(super) fn digests(tokens: Vec<AdminToken>) -> Vec<(Digest, AdminToken)> {
    tokens.into_iter().map(|token| (Digest::of(token.token.expose()), token)).collect()
}

/// Whether a request of a browser was sent by a page of this listener: its `Origin` is the origin that it asks.
pub(super) fn is_own_page(headers: &HeaderMap) -> bool {
    let (Some(origin), Some(host)) = (headers.get(ORIGIN), headers.get(HOST)) else { return false };
    let (Ok(origin), Ok(host)) = (origin.to_str(), host.to_str()) else { return false };
    origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}
