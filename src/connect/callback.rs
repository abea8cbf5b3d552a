//! The browser's way back: the provider's answer is checked, its code spent once, and the browser sent to the app or shown a page.

use super::answer::{self, Params};
use super::begin::{Cookies, is_bound};
use super::book::Found;
use super::grant::Gained;
use super::links::with_pairs;
use super::oauth1;
use super::session::{self, Answer, Attempt, Digest, Outcome, Parked, Phase, Session, cookie_name, handle_in, new_text};
use super::{Connect, Refusal};
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use crate::oauth::{Grant, TokenError, Unexchanged, Values, in_group, split_scopes};
use crate::provider::{Registration, StateRule};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a form-POST answer waits for its browser (contract §6).
const PARKED_FOR: Duration = Duration::from_secs(60);
/// Longer than all that may be under way: what the issuer publishes and its keys (10 s each, tried twice), the code's call and the longer
/// token's (30 s each), the lookups, the revocation of what cannot be kept, and the tries to store.
const EXCHANGED_WITHIN: Duration = Duration::from_secs(300);
/// How long the lookups of one connection may take together, however many there are.
const LOOKUPS_WITHIN: Duration = Duration::from_secs(30);
/// How many of a browser's cookies are looked at for the one session that a callback without `state` may be of.
const COOKIES_MAX: usize = 16;

/// Where a browser ends up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landing {
    /// 303 to the app.
    App { url: String },
    /// A page of ours, for there is no `return_url`.
    Page { provider: String, end_user: String, outcome: Outcome, missing_scopes: Vec<String> },
}

/// What a callback led to.
#[derive(Debug)]
pub struct Arrival {
    pub landing: Landing,
    /// The cookie of this session, which is of no more use.
    pub spent_cookie: String,
}

impl Connect {
    /// The provider's answer by GET. `state`, browser and `iss` are checked before anything is sent anywhere.
    ///
    /// # Errors
    /// When the answer is not that of this browser's own, live attempt: nothing changes then, so that whoever is entitled may still come.
    pub async fn callback(&self, provider: &str, params: &Params, cookies: &Cookies) -> Result<Arrival, Refusal> {
        let snapshot = self.live.snapshot();
        let registration = self.registration(&snapshot, provider);
        let speaks_oauth1 = registration.as_ref().is_some_and(|registration| registration.oauth1.is_some());
        let (found, attempt) = match params.get("state") {
            // What `oauth_token` and `denied` mean is OAuth 1.0a's alone to say.
            None if let Some(token) = oauth1::token_in(params).filter(|_| speaks_oauth1) => self.oauth1_attempt(token, cookies).await?,
            Some(state) => self.attempt_of(state, |attempt| attempt.state.fits(state)).await?,
            None => self.attempt_by_cookie(registration.as_deref(), cookies).await?,
        };
        self.check_way(&found.session, &attempt, provider, cookies)?;
        let mut answer = answer::read(registration.as_deref(), params)?;
        if attempt.temporary.is_some() {
            oauth1::read(&mut answer, params);
        } else if !params.contains_key("state") && !is_taken_without_state(registration.as_deref(), &answer) {
            return Err(Refusal::Gone);
        }
        self.arrive(found, &attempt, answer).await
    }

    /// The rest of a form-POST answer: the browser comes by GET, with its cookie, for what was parked.
    ///
    /// # Errors
    /// As [`Connect::callback`].
    pub async fn resume(&self, provider: &str, id: &str, cookies: &Cookies) -> Result<Arrival, Refusal> {
        let is_parked =
            |attempt: &Attempt| attempt.parked.as_ref().is_some_and(|parked| parked.id.fits(id) && self.clock.now() < parked.until);
        let (found, attempt) = self.attempt_of(id, is_parked).await?;
        self.check_way(&found.session, &attempt, provider, cookies)?;
        let answer = attempt.parked.as_ref().map(|parked| parked.answer.clone()).unwrap_or_default();
        self.arrive(found, &attempt, answer).await
    }

    /// The provider's answer by form POST (OAuth 2.0 Form Post Response Mode). It comes from another site, so that the browser sends no cookie
    /// along: it is parked, and the browser asked to come for it. Answers the id to come with.
    ///
    /// # Errors
    /// When there is no live attempt with this `state`.
    pub async fn park(&self, provider: &str, params: &Params) -> Result<String, Refusal> {
        let state = params.get("state").ok_or(Refusal::Gone)?;
        let (mut found, mut attempt) = self.attempt_of(state, |attempt| attempt.state.fits(state)).await?;
        if *attempt.provider != *provider {
            return Err(Refusal::Refused("the answer is not of the provider that was asked"));
        }
        let snapshot = self.live.snapshot();
        let answer = answer::read(self.registration(&snapshot, provider).as_deref(), params)?;
        let id = new_text(&found.session.handle);
        let until = self.clock.now().plus(PARKED_FOR);
        attempt.parked = Some(Parked { id: Digest::of(&id), answer, until });
        found.session.phase = Phase::Begun(attempt);
        self.advance(&found).await?;
        Ok(id)
    }

    /// The live session that a text leads to, if its attempt says so.
    async fn attempt_of(&self, text: &str, is_its: impl Fn(&Attempt) -> bool) -> Result<(Found, Box<Attempt>), Refusal> {
        let handle = handle_in(text).ok_or(Refusal::Gone)?;
        let found = self.by_handle(handle).await?.ok_or(Refusal::Gone)?;
        match &found.session.phase {
            Phase::Begun(attempt) if attempt.temporary.is_none() && is_its(attempt) => {
                let attempt = attempt.clone();
                Ok((found, attempt))
            }
            _ => Err(Refusal::Gone),
        }
    }

    /// The one live attempt at this provider among the sessions that the browser has a cookie for, where the provider is known to leave `state`
    /// out (Q26). Two of them could be mixed up, so that neither is taken.
    async fn attempt_by_cookie(&self, registration: Option<&Registration>, cookies: &Cookies) -> Result<(Found, Box<Attempt>), Refusal> {
        let registration =
            registration.filter(|registration| registration.dialect.callback.state != StateRule::Required).ok_or(Refusal::Gone)?;
        let mut only = None;
        for handle in handles_of(cookies)? {
            let Some(found) = self.by_handle(handle).await? else { continue };
            let Phase::Begun(attempt) = &found.session.phase else { continue };
            if attempt.temporary.is_none() && *attempt.provider == *registration.id && is_bound(attempt, handle, cookies) {
                let attempt = attempt.clone();
                if only.replace((found, attempt)).is_some() {
                    return Err(Refusal::Refused("the answer does not say which of two attempts it is of"));
                }
            }
        }
        only.ok_or(Refusal::Gone)
    }

    /// The same browser, and the provider that it was sent to (THREATS rows 22 and 23).
    fn check_way(&self, session: &Session, attempt: &Attempt, provider: &str, cookies: &Cookies) -> Result<(), Refusal> {
        if !is_bound(attempt, &session.handle, cookies) {
            return Err(Refusal::OtherBrowser);
        }
        if *attempt.provider != *provider {
            return Err(Refusal::Refused("the answer is not of the provider that was asked"));
        }
        Ok(())
    }

    /// The answer is this browser's own. From here on the session is spent, whatever comes.
    async fn arrive(&self, mut found: Found, attempt: &Attempt, answer: Answer) -> Result<Arrival, Refusal> {
        let snapshot = self.live.snapshot();
        found.session.phase = Phase::Exchanging { provider: attempt.provider.clone() };
        // The sweep must not take a session away whose code is being spent.
        found.session.expires_at = found.session.expires_at.max(self.clock.now().plus(EXCHANGED_WITHIN));
        // Of two callbacks with one state, one gets past this line: a code is sent once, also where its answer is lost (RFC 6749 §4.1.2).
        found.version = self.advance(&found).await?;
        let Some(registration) = self.registration(&snapshot, &attempt.provider) else {
            tracing::warn!(provider.id = %attempt.provider, "a callback came for a provider that is no longer on");
            return self.end(&mut found, &attempt.provider, Outcome::Failed).await;
        };
        if let Err(error) = self.client.check_issuer(&registration, answer.iss.as_deref()).await {
            tracing::warn!(event = "connect.mixed_up", provider.id = %registration.id, error = %error, "a callback was refused");
            return self.end(&mut found, &registration.id, Outcome::Failed).await;
        }
        if answer.denied || answer.error.is_some() {
            let outcome = if answer.denied { Outcome::Denied } else { Outcome::Failed };
            tracing::info!(provider.id = %registration.id, outcome = outcome.name(), "the provider granted nothing");
            return self.end(&mut found, &registration.id, outcome).await;
        }
        if let Some(name) = &answer.unfit {
            // Nothing was sent anywhere: neither the code nor the client's secret.
            tracing::warn!(event = "connect.mixed_up", provider.id = %registration.id, value = %name, "a callback was refused: a value of it is missing or may not stand where the definition has it");
            return self.end(&mut found, &registration.id, Outcome::Failed).await;
        }
        match answer.code.clone() {
            Some(code) => self.exchange(found, &registration, attempt, code, answer).await,
            None => self.end(&mut found, &registration.id, Outcome::Failed).await,
        }
    }

    async fn exchange(
        &self,
        mut found: Found,
        registration: &Arc<Registration>,
        attempt: &Attempt,
        code: Secret,
        answer: Answer,
    ) -> Result<Arrival, Refusal> {
        let began = self.clock.now();
        let key = ConnectionKey::new(&registration.id, &found.session.end_user, &found.session.account);
        let mut learnt: BTreeMap<String, Value> =
            attempt.values.iter().map(|(name, value)| (name.clone(), value.as_str().into())).chain(answer.learnt).collect();
        let known: BTreeMap<String, Value> = found.session.metadata.clone().into_iter().chain(learnt.clone()).collect();
        let (verifier, nonce) = (attempt.verifier.as_ref(), attempt.nonce.as_ref());
        let scope = in_group(registration, &attempt.scopes, None).join(&registration.scope_separator);
        let scope = Some(&*scope).filter(|scope| !scope.is_empty());
        let values = Values { callback: &answer.callback, scope, ..Values::of(&known) };
        let granted = match (&attempt.temporary, self.client.holding(registration, attempt.key.as_ref())) {
            (Some(temporary), _) => self.client.oauth1_token(registration, temporary, &code, values).await.map_err(Unexchanged::from),
            (None, Ok(client)) => client.exchange_code(registration, &code, &attempt.redirect_uri, verifier, nonce, values).await,
            (None, Err(error)) => Err(error.into()),
        };
        let mut grant = match granted {
            Ok(grant) => grant,
            Err(Unexchanged { error, dropped }) => {
                tell_failure(registration, &error);
                if let Some(grant) = dropped {
                    let gained = Gained::granted(registration, &key, *grant, &attempt.scopes, began, learnt);
                    self.drop_gained(registration, &key, &gained).await;
                }
                return self.end(&mut found, &registration.id, Outcome::Failed).await;
            }
        };
        // What the token endpoint says goes first: the callback came through the browser.
        if let (None, Some(scope)) = (&grant.scopes, &answer.scope) {
            grant.scopes = Some(split_scopes(registration, scope));
        }
        let known: BTreeMap<String, Value> = known.into_iter().chain(grant.learnt.clone()).collect();
        let looked_up = self.completed(registration, &grant, &known).await;
        if let Ok(values) = &looked_up {
            learnt.extend(values.clone());
        }
        let gained = Gained::granted(registration, &key, grant, &attempt.scopes, began, learnt);
        if looked_up.is_err() {
            self.drop_gained(registration, &key, &gained).await;
            return self.end(&mut found, &registration.id, Outcome::Failed).await;
        }
        let handle = found.session.handle.clone();
        let landing = self.land(&mut found, registration, gained).await?;
        Ok(Arrival { landing, spent_cookie: cookie_name(&handle) })
    }

    /// What else a connection needs before it stands: the values that the reply must hold, and those that are looked up.
    pub(super) async fn completed(
        &self,
        registration: &Registration,
        grant: &Grant,
        known: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, ()> {
        if let Some(name) = &grant.lacking {
            tracing::warn!(event = "connect.failed", provider.id = %registration.id, value = %name, "a grant came without a value that the connection needs, or with one that may not stand there");
            return Err(());
        }
        match tokio::time::timeout(LOOKUPS_WITHIN, self.client.look_up(registration, grant, known)).await {
            Ok(found) => found.map_err(|error| tell_failure(registration, &error)),
            Err(_) => {
                tracing::warn!(event = "connect.failed", provider.id = %registration.id, "the lookups after connecting took too long");
                Err(())
            }
        }
    }

    /// Ends the session without a connection.
    async fn end(&self, found: &mut Found, provider: &str, outcome: Outcome) -> Result<Arrival, Refusal> {
        found.session.phase = Phase::Ended { provider: Some(provider.into()), outcome };
        found.version = self.advance(found).await?;
        let landing = landing(&found.session, provider, outcome, None, Vec::new());
        Ok(Arrival { landing, spent_cookie: cookie_name(&found.session.handle) })
    }
}

/// The sessions that a browser has cookies of. Each is a read of the store, and which of too many were looked at would be chance.
pub(super) fn handles_of(cookies: &Cookies) -> Result<Vec<&str>, Refusal> {
    let handles: Vec<&str> = cookies.keys().filter_map(|name| session::handle_of_cookie(name)).take(COOKIES_MAX + 1).collect();
    if handles.len() > COOKIES_MAX { Err(Refusal::Refused("the browser has too many connects under way")) } else { Ok(handles) }
}

/// Whether this answer is believed though nothing but the cookie says whose it is. A code that a stranger's link brought would connect the
/// stranger's account (RFC 9700 §4.7), so that of a provider that forgets `state` on errors alone none is taken.
fn is_taken_without_state(registration: Option<&Registration>, answer: &Answer) -> bool {
    match registration.map(|registration| registration.dialect.callback.state) {
        Some(StateRule::Cookie) => true,
        Some(StateRule::CookieOnError) => answer.code.is_none() && (answer.denied || answer.error.is_some()),
        Some(StateRule::Required) | None => false,
    }
}

/// Where this session's browser goes with this outcome.
pub(super) fn landing(
    session: &Session,
    provider: &str,
    outcome: Outcome,
    completion: Option<&str>,
    missing_scopes: Vec<String>,
) -> Landing {
    match &session.return_url {
        Some(url) => {
            let mut pairs = vec![("status", outcome.name()), ("provider", provider)];
            pairs.extend(completion.map(|code| ("completion", code)));
            Landing::App { url: with_pairs(url, &pairs) }
        }
        None => Landing::Page { provider: provider.to_owned(), end_user: session.end_user.to_string(), outcome, missing_scopes },
    }
}

fn tell_failure(registration: &Registration, error: &TokenError) {
    tracing::warn!(event = "connect.failed", provider.id = %registration.id, error = %error, "a code brought no grant");
}
