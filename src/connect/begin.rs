//! The browser's way out: what the connect page shows, and the trip to the provider that its form begins.

use super::book::Found;
use super::grant::Gained;
use super::session::{Attempt, Digest, Phase, Session, cookie_name, new_text};
use super::{Connect, Landing, Refusal, challenge, inputs, is_connectable};
use crate::base::ids::{ConnectionKey, random_token};
use crate::base::secret::Secret;
use crate::config::Snapshot;
use crate::oauth::{AuthorizeRequest, TokenError, Values, new_key, wants_nonce};
use crate::provider::{Asks, Input, Pkce, Registration};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use url::Url;

/// The longest key, user name or password that is taken from a form.
const TYPED_BYTES_MAX: usize = 8 * 1024;

/// The cookies of a request, by name.
pub type Cookies = HashMap<String, String>;

/// What the connect page shows.
#[derive(Debug, Clone)]
pub struct View {
    pub end_user: Box<str>,
    pub account: Box<str>,
    pub offers: Vec<Offered>,
    /// The host that the browser will be sent back to.
    pub returns_to: Option<String>,
}

/// One provider that can be chosen, with what it will be asked for.
#[derive(Debug, Clone)]
pub struct Offered {
    pub registration: Arc<Registration>,
    pub scopes: Vec<String>,
    /// What must be typed first.
    pub inputs: Vec<Input>,
}

/// What a form's POST led to.
#[derive(Debug)]
pub enum Begun {
    /// To the provider, bound to this browser by a cookie.
    Redirect { url: String, cookie: BrowserCookie },
    /// There was nobody to ask: what was typed is the connection.
    Landed(Landing),
}

/// The cookie that binds the session to the browser that began.
#[derive(Debug, Clone)]
pub struct BrowserCookie {
    pub name: String,
    pub value: Secret,
    pub max_age_s: u64,
}

impl Connect {
    /// The page of a link. Changes nothing: mail scanners and link previews open links (THREATS row 43).
    ///
    /// # Errors
    /// When the link is no longer good, or another browser began with it.
    pub async fn view(&self, id: &str, cookies: &Cookies) -> Result<View, Refusal> {
        let found = self.open(id, cookies).await?;
        let snapshot = self.live.snapshot();
        let session = &found.session;
        let mut offers = Vec::new();
        for registration in self.choices(&snapshot, session) {
            let scopes = self.scopes(session, &registration).await?;
            let inputs = inputs::open(&registration, &session.metadata);
            offers.push(Offered { registration, scopes, inputs });
        }
        if offers.is_empty() {
            return Err(Refusal::Refused("none of the providers of this link can be connected to at the moment"));
        }
        let returns_to = session.return_url.as_deref().and_then(super::links::host_of);
        Ok(View { end_user: session.end_user.clone(), account: session.account.clone(), offers, returns_to })
    }

    /// The form of the page was sent: off to the provider.
    ///
    /// # Errors
    /// When the link is no longer good, another browser began with it, or the form is not whole.
    pub async fn begin(&self, id: &str, form: &HashMap<String, Secret>, cookies: &Cookies) -> Result<Begun, Refusal> {
        let mut found = self.open(id, cookies).await?;
        let snapshot = self.live.snapshot();
        let registration = self.chosen(&snapshot, &found.session, form)?;
        let typed_in = |name: &str| form.get(name).map(Secret::expose);
        let values = inputs::fill(&registration, &found.session.metadata, typed_in).map_err(|problem| Refusal::Form(problem.into()))?;
        match registration.asks {
            Asks::Consent if registration.oauth1.is_some() => self.send_off_oauth1(found, &registration, values).await,
            Asks::Consent => self.send_off(found, &registration, values).await,
            Asks::ApiKey => {
                let key = typed(form, "api_key").ok_or(Refusal::Form("Enter the API key.".into()))?;
                let gained = Gained::typed(key, "api_key", values);
                self.land_typed(&mut found, &registration, gained).await.map(Begun::Landed)
            }
            Asks::Password => {
                let user = typed(form, "username").filter(|user| !user.expose().contains(':'));
                let user = user.ok_or(Refusal::Form("Enter the user name; it holds no colon.".into()))?;
                let password = typed(form, "password").ok_or(Refusal::Form("Enter the password.".into()))?;
                let gained = Gained::typed(Secret::new(format!("{}:{}", user.expose(), password.expose())), "basic", values);
                self.land_typed(&mut found, &registration, gained).await.map(Begun::Landed)
            }
        }
    }

    /// The session, if this browser may go on with it.
    async fn open(&self, id: &str, cookies: &Cookies) -> Result<Found, Refusal> {
        let found = self.by_id(id).await?.ok_or(Refusal::Gone)?;
        match &found.session.phase {
            Phase::Open => Ok(found),
            Phase::Begun(attempt) if is_bound(attempt, &found.session.handle, cookies) => Ok(found),
            Phase::Begun(_) => Err(Refusal::OtherBrowser),
            Phase::Exchanging { .. } | Phase::Granted(_) | Phase::Ended { .. } => Err(Refusal::Gone),
        }
    }

    fn choices(&self, snapshot: &Snapshot, session: &Session) -> Vec<Arc<Registration>> {
        let named =
            |registration: &Registration| session.providers.is_empty() || session.providers.iter().any(|id| **id == *registration.id);
        // In the order that the app named them, else in that of their names.
        let mut choices: Vec<_> =
            snapshot.providers.values().filter(|registration| named(registration) && is_connectable(registration)).cloned().collect();
        choices.sort_by_key(|registration| session.providers.iter().position(|id| **id == *registration.id));
        choices
    }

    fn chosen(&self, snapshot: &Snapshot, session: &Session, form: &HashMap<String, Secret>) -> Result<Arc<Registration>, Refusal> {
        let choices = self.choices(snapshot, session);
        match (form.get("provider"), choices.as_slice()) {
            (Some(id), _) => choices
                .iter()
                .find(|registration| *registration.id == *id.expose())
                .cloned()
                .ok_or(Refusal::Form("Choose one of the services below.".into())),
            (None, [only]) => Ok(Arc::clone(only)),
            (None, _) => Err(Refusal::Form("Choose one of the services below.".into())),
        }
    }

    /// What to ask for: what the session says or the registration, and what the connection has already, so that a second consent never
    /// narrows the first.
    pub(super) async fn scopes(&self, session: &Session, registration: &Registration) -> Result<Vec<String>, Refusal> {
        let mut scopes = session.scopes.clone().unwrap_or_else(|| registration.scopes.iter().map(ToString::to_string).collect());
        if session.scopes.is_some() {
            let key = ConnectionKey::new(&registration.id, &session.end_user, &session.account);
            let known = self.records.connection(&key).await?;
            for scope in known.into_iter().flat_map(|keyed| keyed.record.scopes) {
                let is_grouped = |asked: &String| asked.split_once('=').is_some_and(|(_, bare)| bare == scope);
                if !scopes.contains(&scope) && !scopes.iter().any(is_grouped) {
                    scopes.push(scope);
                }
            }
        }
        Ok(scopes)
    }

    async fn send_off(&self, found: Found, registration: &Registration, values: BTreeMap<String, String>) -> Result<Begun, Refusal> {
        let session = &found.session;
        let (state, cookie) = (new_text(&session.handle), Secret::new(random_token()));
        let scopes = self.scopes(session, registration).await?;
        // 256 random bits are 43 characters, the least that RFC 7636 §4.1 allows.
        let verifier = (registration.pkce != Pkce::None).then(|| Secret::new(random_token()));
        let nonce = wants_nonce(registration, &scopes).then(|| Secret::new(random_token()));
        // A registered name in its place is sent as it is (Q12).
        let redirect_uri = registration.dialect.redirect_uri.as_deref().map_or_else(|| self.redirect_uri(&registration.id), str::to_owned);
        let mut metadata = session.metadata.clone();
        metadata.extend(values.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        let challenge = verifier.as_ref().map(|verifier| challenge(registration.pkce, verifier));
        let request = AuthorizeRequest {
            redirect_uri: &redirect_uri,
            state: &state,
            scopes: &scopes,
            challenge: challenge.as_deref(),
            nonce: nonce.as_ref().map(Secret::expose),
            params: &session.params,
            values: Values::of(&metadata),
        };
        let key = new_key(registration);
        let client = self.client.holding(registration, key.as_ref()).map_err(|error| unreachable(registration, &error))?;
        // Before the session moves: a provider that does not answer a pushed request leaves the link as good as it was.
        let url = client.authorization_url(registration, &request).await.map_err(|error| unreachable(registration, &error))?;
        let attempt = Attempt {
            provider: (&*registration.id).into(),
            state: Digest::of(&state),
            cookie: Digest::of(cookie.expose()),
            verifier,
            nonce,
            redirect_uri: redirect_uri.into(),
            scopes,
            values,
            key,
            temporary: None,
            parked: None,
        };
        self.sent_off(found, registration, attempt, cookie, url).await
    }

    /// Binds the session to this browser, which is on its way to `url`.
    pub(super) async fn sent_off(
        &self,
        mut found: Found,
        registration: &Registration,
        attempt: Attempt,
        cookie: Secret,
        url: Url,
    ) -> Result<Begun, Refusal> {
        found.session.phase = Phase::Begun(Box::new(attempt));
        self.advance(&found).await?;
        let session = &found.session;
        tracing::info!(provider.id = %registration.id, "an end user was sent to the provider");
        let max_age_s = session.expires_at.since(self.clock.now()).as_secs().max(1);
        Ok(Begun::Redirect { url: url.into(), cookie: BrowserCookie { name: cookie_name(&session.handle), value: cookie, max_age_s } })
    }
}

/// Whether the browser holds the cookie that the attempt was bound to.
pub(super) fn is_bound(attempt: &Attempt, handle: &str, cookies: &Cookies) -> bool {
    cookies.get(&cookie_name(handle)).is_some_and(|value| attempt.cookie.fits(value))
}

pub(super) fn unreachable(registration: &Registration, error: &TokenError) -> Refusal {
    tracing::warn!(provider.id = %registration.id, error = %error, "an end user could not be sent to the provider");
    Refusal::ProviderUnreachable
}

/// A field of the form that can stand in a header: white space around it is a slip of the clipboard.
fn typed(form: &HashMap<String, Secret>, field: &str) -> Option<Secret> {
    let text = form.get(field)?.expose().trim();
    let fits = !text.is_empty() && text.len() <= TYPED_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| Secret::new(text))
}
