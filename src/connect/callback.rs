//! The browser's way back: the provider's answer is checked, its code spent once, and the browser sent to the app or shown a page.

use super::begin::{Cookies, is_bound};
use super::book::Found;
use super::grant::Gained;
use super::links::with_pairs;
use super::session::{Answer, Attempt, Digest, Outcome, Parked, Phase, Session, cookie_name, handle_in, new_text};
use super::{Connect, Refusal};
use crate::base::secret::Secret;
use crate::oauth::TokenError;
use crate::provider::Registration;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a form-POST answer waits for its browser (contract §6).
const PARKED_FOR: Duration = Duration::from_secs(60);
/// Longer than a token call and the tries to store what it brings.
const EXCHANGED_WITHIN: Duration = Duration::from_secs(120);
const CODE_BYTES_MAX: usize = 8 * 1024;

/// The parameters of a callback, each there once.
pub type Params = HashMap<String, String>;

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
        let state = params.get("state").ok_or(Refusal::Gone)?;
        let (found, attempt) = self.attempt_of(state, |attempt| attempt.state.fits(state)).await?;
        self.check_way(&found.session, &attempt, provider, cookies)?;
        self.arrive(found, &attempt, answer(params)).await
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
        let id = new_text(&found.session.handle);
        let until = self.clock.now().plus(PARKED_FOR);
        attempt.parked = Some(Parked { id: Digest::of(&id), answer: answer(params), until });
        found.session.phase = Phase::Begun(attempt);
        self.advance(&found).await?;
        Ok(id)
    }

    /// The live session that a text leads to, if its attempt says so.
    async fn attempt_of(&self, text: &str, is_its: impl Fn(&Attempt) -> bool) -> Result<(Found, Box<Attempt>), Refusal> {
        let handle = handle_in(text).ok_or(Refusal::Gone)?;
        let found = self.by_handle(handle).await?.ok_or(Refusal::Gone)?;
        match &found.session.phase {
            Phase::Begun(attempt) if is_its(attempt) => {
                let attempt = attempt.clone();
                Ok((found, attempt))
            }
            _ => Err(Refusal::Gone),
        }
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
        match (answer.error, answer.code) {
            (Some(error), _) => {
                let outcome = if is_denial(&error) { Outcome::Denied } else { Outcome::Failed };
                tracing::info!(provider.id = %registration.id, outcome = outcome.name(), "the provider granted nothing");
                self.end(&mut found, &registration.id, outcome).await
            }
            (None, Some(code)) => self.exchange(found, &registration, attempt, code).await,
            (None, None) => self.end(&mut found, &registration.id, Outcome::Failed).await,
        }
    }

    async fn exchange(
        &self,
        mut found: Found,
        registration: &Arc<Registration>,
        attempt: &Attempt,
        code: Secret,
    ) -> Result<Arrival, Refusal> {
        let began = self.clock.now();
        let (verifier, nonce) = (attempt.verifier.as_ref(), attempt.nonce.as_ref());
        let granted = self.client.exchange_code(registration, &code, &attempt.redirect_uri, verifier, nonce).await;
        match granted {
            Ok(grant) => {
                let gained = Gained::granted(grant, &attempt.scopes, began);
                let handle = found.session.handle.clone();
                let landing = self.land(&mut found, registration, gained).await?;
                Ok(Arrival { landing, spent_cookie: cookie_name(&handle) })
            }
            Err(error) => {
                tell_failure(registration, &error);
                self.end(&mut found, &registration.id, Outcome::Failed).await
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

fn answer(params: &Params) -> Answer {
    let text = |name: &str| params.get(name).filter(|text| !text.is_empty() && text.len() <= CODE_BYTES_MAX).cloned();
    Answer { code: text("code").map(Secret::new), error: text("error"), iss: text("iss") }
}

/// RFC 6749 §4.1.2.1's word for a person's no, and the others that are in use for it.
fn is_denial(error: &str) -> bool {
    ["access_denied", "user_denied", "user_cancelled_login", "user_cancelled_authorize", "user_cancelled"].contains(&error)
}

fn tell_failure(registration: &Registration, error: &TokenError) {
    tracing::warn!(event = "connect.failed", provider.id = %registration.id, error = %error, "a code brought no grant");
}
