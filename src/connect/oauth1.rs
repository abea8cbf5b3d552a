//! The browser's trip where the provider speaks OAuth 1.0a (RFC 5849 §2): out with a temporary token, back with the same and a verifier.
//!
//! The protocol has no `state`. The temporary token stands in its place: the session keeps its digest, and is found by the cookies of the browser
//! that comes back, so that the callback URL is the registered one to the letter, and nobody else's browser can bring the answer (P63).

use super::answer::{Params, text_in};
use super::begin::{Begun, Cookies, unreachable};
use super::book::Found;
use super::callback::handles_of;
use super::session::{Answer, Attempt, Digest, Phase};
use super::{Connect, Refusal};
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::oauth::Values;
use crate::provider::Registration;
use std::collections::BTreeMap;

/// The temporary token that a callback is about; a no is told by `denied=TOKEN` (Q29).
pub(super) fn token_in(params: &Params) -> Option<&str> {
    text_in(params, "oauth_token").or_else(|| text_in(params, "denied"))
}

/// What such a callback says (RFC 5849 §2.2), over what it would say in OAuth 2.0.
pub(super) fn read(answer: &mut Answer, params: &Params) {
    answer.code = text_in(params, "oauth_verifier").map(Secret::new);
    // The problem extension's words for a no, and for all else.
    let problem = text_in(params, "oauth_problem");
    answer.denied |= params.contains_key("denied") || matches!(problem, Some("user_refused" | "permission_denied"));
    answer.error = answer.error.take().or_else(|| problem.map(str::to_owned));
}

impl Connect {
    /// Fetches temporary credentials and sends the browser off with them.
    pub(super) async fn send_off_oauth1(
        &self,
        found: Found,
        registration: &Registration,
        values: BTreeMap<String, String>,
    ) -> Result<Begun, Refusal> {
        let cookie = Secret::new(random_token());
        let scopes = self.scopes(&found.session, registration).await?;
        // A registered name in its place is sent as it is (Q12).
        let redirect_uri = registration.dialect.redirect_uri.as_deref().map_or_else(|| self.redirect_uri(&registration.id), str::to_owned);
        let mut metadata = found.session.metadata.clone();
        metadata.extend(values.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        let known = Values::of(&metadata);
        // Before the session moves: a provider that does not answer leaves the link as good as it was.
        let temporary = self.client.temporary_credentials(registration, &redirect_uri, known).await;
        let temporary = temporary.map_err(|error| unreachable(registration, &error))?;
        let url = self.client.oauth1_authorize_url(registration, &temporary, &scopes, &found.session.params, known).await;
        let url = url.map_err(|error| unreachable(registration, &error))?;
        let attempt = Attempt {
            provider: (&*registration.id).into(),
            state: Digest::of(temporary.token.expose()),
            cookie: Digest::of(cookie.expose()),
            verifier: None,
            nonce: None,
            redirect_uri: redirect_uri.into(),
            scopes,
            values,
            key: None,
            temporary: Some(temporary),
            parked: None,
        };
        self.sent_off(found, registration, attempt, cookie, url).await
    }

    /// The live session of this browser that went out with this token.
    pub(super) async fn oauth1_attempt(&self, token: &str, cookies: &Cookies) -> Result<(Found, Box<Attempt>), Refusal> {
        for handle in handles_of(cookies)? {
            let Some(found) = self.by_handle(handle).await? else { continue };
            if let Phase::Begun(attempt) = &found.session.phase
                && attempt.temporary.is_some()
                && attempt.state.fits(token)
            {
                let attempt = attempt.clone();
                return Ok((found, attempt));
            }
        }
        Err(Refusal::Gone)
    }
}
