//! The public listener: connect pages and OAuth callbacks for end users' browsers, and nothing else (contract §6).
//!
//! What a browser sent is read here and what it gets is written here; what it means is `connect`'s to say. `public_url` is the only truth about
//! scheme, host and path prefix: `Host` and forwarding headers are not asked. No URL of a request is logged, for each holds a secret.

use super::body::{self, BodyError};
use super::control::ControlPeer;
use super::pages::{self, Connecting, Ended, Field, Look, Offer, Page};
use crate::base::ids::DEFAULT_ACCOUNT;
use crate::base::secret::Secret;
use crate::connect::begin::BrowserCookie;
use crate::connect::{Arrival, Begun, Connect, Cookies, Landing, Outcome, Params, Refusal, View};
use crate::provider::Registration;
use bytes::Bytes;
use cookie::time::Duration as Age;
use cookie::{Cookie, SameSite};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::Arc;

/// The longest form that a browser or a provider may post.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// What the public listener answers from.
#[derive(Debug)]
pub struct Public {
    connect: Arc<Connect>,
    /// The path of `public_url` without its last slash: requests may come with it or, behind a balancer that strips it, without.
    prefix: String,
    /// What `Origin` says when our own page posts its form.
    origin: String,
    is_https: bool,
}

/// A parameter list that cannot be believed.
struct Repeated;

impl Public {
    pub fn new(connect: Arc<Connect>) -> Arc<Self> {
        let url = connect.public_url();
        let (prefix, origin) = (url.path().trim_end_matches('/').to_owned(), url.origin().ascii_serialization());
        let is_https = url.scheme() == "https";
        Arc::new(Public { connect, prefix, origin, is_https })
    }

    /// Answers one request of a browser.
    pub async fn handle(self: Arc<Self>, _peer: ControlPeer, request: Request<Incoming>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let path = path.strip_prefix(&*self.prefix).filter(|rest| rest.starts_with('/')).unwrap_or(path).to_owned();
        if let Some(session) = path.strip_prefix("/connect/").filter(|session| !session.contains('/')) {
            return match head.method {
                Method::GET | Method::HEAD => self.page(session, &head.headers).await,
                Method::POST => self.begin(session, &head.headers, body).await,
                _ => self.not_allowed("GET, HEAD, POST"),
            };
        }
        if let Some(provider) = path.strip_prefix("/oauth/callback/").filter(|provider| self.is_known(provider)) {
            return match head.method {
                Method::GET => self.callback(provider, head.uri.query().unwrap_or_default(), &head.headers).await,
                Method::POST => self.park(provider, &head.headers, body).await,
                _ => self.not_allowed("GET, POST"),
            };
        }
        self.ended(StatusCode::NOT_FOUND, &Ended::NotFound)
    }

    fn is_known(&self, provider: &str) -> bool {
        self.connect.live.snapshot().providers.contains_key(provider)
    }

    /// `GET /connect/{session}`: shows, and changes nothing.
    async fn page(&self, session: &str, headers: &HeaderMap) -> Response<Bytes> {
        match self.connect.view(session, &cookies(headers)).await {
            Ok(view) => self.connect_page(StatusCode::OK, session, &view, None, &HashMap::new()),
            Err(refusal) => self.refused(&refusal),
        }
    }

    /// `POST /connect/{session}`: off to the provider.
    async fn begin(&self, session: &str, headers: &HeaderMap, body: Incoming) -> Response<Bytes> {
        // Browsers send `Origin` with every form POST; whatever came from another page or from none is not the form that we showed.
        let origins: Vec<_> = headers.get_all(ORIGIN).iter().collect();
        if !matches!(origins.as_slice(), [origin] if origin.as_bytes() == self.origin.as_bytes()) {
            return self.refused(&Refusal::Refused("the form was not sent by this page"));
        }
        let form = match self.form(headers, body).await {
            Ok(form) => form,
            Err(answer) => return *answer,
        };
        let form: HashMap<String, Secret> = form.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let cookies = cookies(headers);
        let begun = {
            let (connect, session, form, cookies) = (Arc::clone(&self.connect), session.to_owned(), form.clone(), cookies.clone());
            self.connect.to_its_end(async move { connect.begin(&session, &form, &cookies).await }).await
        };
        match begun.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(Begun::Redirect { url, cookie }) => self.redirect(&url, Some(&self.set_cookie(&cookie))),
            Ok(Begun::Landed(landing)) => self.landed(&landing, None),
            Err(Refusal::Form(problem)) => match self.connect.view(session, &cookies).await {
                Ok(mut view) => {
                    // The offer that the form was for, so that its fields stand beside the problem.
                    if let Some(id) = form.get("provider").map(Secret::expose)
                        && view.offers.iter().any(|offer| *offer.registration.id == *id)
                    {
                        view.offers.retain(|offer| *offer.registration.id == *id);
                    }
                    self.connect_page(StatusCode::BAD_REQUEST, session, &view, Some(&problem), &form)
                }
                Err(refusal) => self.refused(&refusal),
            },
            Err(refusal) => self.refused(&refusal),
        }
    }

    /// `GET /oauth/callback/{provider}`.
    async fn callback(&self, provider: &str, query: &str, headers: &HeaderMap) -> Response<Bytes> {
        let Ok(params) = once(query.as_bytes()) else { return self.repeated() };
        let (connect, provider, cookies) = (Arc::clone(&self.connect), provider.to_owned(), cookies(headers));
        // A code is spent once: what it brings is kept though the browser goes away meanwhile.
        let arrived = self.connect.to_its_end(async move {
            match params.get("resume") {
                Some(id) => connect.resume(&provider, id, &cookies).await,
                None => connect.callback(&provider, &params, &cookies).await,
            }
        });
        match arrived.await.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(Arrival { landing, spent_cookie }) => self.landed(&landing, Some(&spent_cookie)),
            Err(refusal) => self.refused(&refusal),
        }
    }

    /// `POST /oauth/callback/{provider}`: the form-POST answer of some providers, without cookies since it comes from their site. 303 to the GET.
    async fn park(&self, provider: &str, headers: &HeaderMap, body: Incoming) -> Response<Bytes> {
        let form = match self.form(headers, body).await {
            Ok(form) => form,
            Err(answer) => return *answer,
        };
        match self.connect.park(provider, &form).await {
            Ok(id) => self.redirect(&format!("{}?resume={id}", self.connect.redirect_uri(provider)), None),
            Err(refusal) => self.refused(&refusal),
        }
    }

    async fn form(&self, headers: &HeaderMap, body: Incoming) -> Result<Params, Box<Response<Bytes>>> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let refused = Ended::Refused { what: "This page takes the form that it shows, and nothing else.", todo: START_AGAIN };
            return Err(Box::new(self.ended(StatusCode::BAD_REQUEST, &refused)));
        }
        let bytes = body::read(body, FORM_BYTES_MAX).await.map_err(|error| {
            let (status, what) = match error {
                BodyError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "What was sent is too large."),
                BodyError::Broken => (StatusCode::BAD_REQUEST, "The request broke off."),
            };
            Box::new(self.ended(status, &Ended::Refused { what, todo: START_AGAIN }))
        })?;
        once(&bytes).map_err(|Repeated| Box::new(self.repeated()))
    }

    /// `typed` is what the form held that came with the problem: inputs are not to be typed twice, secrets are.
    fn connect_page(
        &self,
        status: StatusCode,
        session: &str,
        view: &View,
        problem: Option<&str>,
        typed: &HashMap<String, Secret>,
    ) -> Response<Bytes> {
        let hosts: Vec<_> = view.offers.iter().map(|offer| authorize_host(&offer.registration)).collect();
        let field = |input| Field::of(input, typed.get(&*input.name).map_or("", Secret::expose));
        let fields: Vec<Vec<Field<'_>>> = view.offers.iter().map(|offer| offer.inputs.iter().map(field).collect()).collect();
        let offers: Vec<Offer<'_>> = view
            .offers
            .iter()
            .zip(hosts.iter().zip(&fields))
            .map(|(offer, (host, fields))| Offer {
                id: &offer.registration.id,
                name: &offer.registration.display_name,
                category: &offer.registration.category,
                scopes: &offer.scopes,
                asks: offer.registration.asks,
                inputs: fields,
                host: host.as_deref(),
            })
            .collect();
        let page = Connecting {
            action: &format!("{}/connect/{session}", self.prefix),
            end_user: &view.end_user,
            account: Some(&*view.account).filter(|account| *account != DEFAULT_ACCOUNT),
            offers: &offers,
            returns_to: view.returns_to.as_deref(),
            problem,
        };
        // Not `no-referrer`: under it browsers send `Origin: null` with the page's own form.
        answer(status, pages::connect(&self.look(), &page), "same-origin")
    }

    fn landed(&self, landing: &Landing, spent_cookie: Option<&str>) -> Response<Bytes> {
        let cookie = spent_cookie.map(|name| self.cookie(name, "", 0));
        let mut response = match landing {
            Landing::App { url } => return self.redirect(url, cookie.as_ref()),
            Landing::Page { provider, end_user, outcome, missing_scopes } => {
                let name = self.name_of(provider);
                match outcome {
                    Outcome::Connected => {
                        let ended = Ended::Connected { provider: &name, end_user, missing_scopes, pending: false };
                        self.ended(StatusCode::OK, &ended)
                    }
                    Outcome::Denied => self.ended(StatusCode::OK, &Ended::Denied { provider: &name }),
                    Outcome::Failed | Outcome::Discarded => {
                        let what = format!("{name} did not complete the connection. Nothing was stored.");
                        self.ended(StatusCode::BAD_GATEWAY, &Ended::Failed { provider: &name, what: &what, todo: START_AGAIN })
                    }
                }
            }
        };
        set(&mut response, SET_COOKIE, cookie.as_ref());
        response
    }

    fn refused(&self, refusal: &Refusal) -> Response<Bytes> {
        tracing::debug!(why = %refusal, "a browser was not let on");
        match refusal {
            Refusal::Gone => self.ended(StatusCode::GONE, &Ended::Gone),
            Refusal::OtherBrowser => self.ended(StatusCode::FORBIDDEN, &Ended::OtherBrowser),
            Refusal::Refused(why) => {
                let what = format!("This request was refused: {why}.");
                self.ended(StatusCode::FORBIDDEN, &Ended::Refused { what: &what, todo: START_AGAIN })
            }
            Refusal::Form(problem) => self.ended(StatusCode::BAD_REQUEST, &Ended::Refused { what: problem, todo: START_AGAIN }),
            Refusal::ProviderUnreachable => {
                let refused = Ended::Refused {
                    what: "The service that you want to connect does not answer at the moment.",
                    todo: "Your link is still good: go back, wait a minute, and try again.",
                };
                self.ended(StatusCode::BAD_GATEWAY, &refused)
            }
            Refusal::Unavailable => {
                let mut response = self.ended(StatusCode::SERVICE_UNAVAILABLE, &Ended::Unavailable);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
                response
            }
        }
    }

    fn repeated(&self) -> Response<Bytes> {
        // RFC 6749 §3.1: a parameter that is there twice makes the whole request invalid.
        let refused = Ended::Refused { what: "The request is not valid: something in it is there twice.", todo: START_AGAIN };
        self.ended(StatusCode::BAD_REQUEST, &refused)
    }

    fn not_allowed(&self, allow: &'static str) -> Response<Bytes> {
        let refused = Ended::Refused { what: "This page is not used like that.", todo: START_AGAIN };
        let mut response = self.ended(StatusCode::METHOD_NOT_ALLOWED, &refused);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        response
    }

    fn ended(&self, status: StatusCode, ended: &Ended<'_>) -> Response<Bytes> {
        answer(status, pages::ended(&self.look(), ended), "no-referrer")
    }

    fn look(&self) -> Look {
        Look::of(&self.connect.live.snapshot().connect)
    }

    fn name_of(&self, provider: &str) -> String {
        let snapshot = self.connect.live.snapshot();
        snapshot.providers.get(provider).map_or_else(|| provider.to_owned(), |registration| registration.display_name.to_string())
    }

    /// 303, so that a POST becomes a GET (RFC 9700 §4.12).
    fn redirect(&self, url: &str, cookie: Option<&Cookie<'_>>) -> Response<Bytes> {
        let Ok(location) = HeaderValue::from_str(url) else { return self.refused(&Refusal::Refused("the way on is no URL")) };
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let headers = response.headers_mut();
        headers.insert(LOCATION, location);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        set(&mut response, SET_COOKIE, cookie);
        response
    }

    fn set_cookie(&self, cookie: &BrowserCookie) -> Cookie<'static> {
        self.cookie(&cookie.name, cookie.value.expose(), i64::try_from(cookie.max_age_s).unwrap_or(i64::MAX))
    }

    fn cookie(&self, name: &str, value: &str, max_age_s: i64) -> Cookie<'static> {
        let path = if self.prefix.is_empty() { "/" } else { &self.prefix };
        Cookie::build((name.to_owned(), value.to_owned()))
            .path(path.to_owned())
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(self.is_https)
            .max_age(Age::seconds(max_age_s))
            .build()
    }
}

const START_AGAIN: &str = "Go back to the app and start again from there.";

/// A page under its policy. Nothing of it is kept, framed or guessed at.
pub(super) fn answer(status: StatusCode, page: Page, referrer: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(page.html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static(referrer));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    set(&mut response, CONTENT_SECURITY_POLICY, Some(&page.csp));
    response
}

fn set<T: std::fmt::Display>(response: &mut Response<Bytes>, name: HeaderName, value: Option<&T>) {
    if let Some(Ok(value)) = value.map(|value| HeaderValue::try_from(value.to_string())) {
        response.headers_mut().append(name, value);
    }
}

/// The cookies of a request; of two with one name the first, as the more specific path goes first (RFC 6265 §5.4).
pub(super) fn cookies(headers: &HeaderMap) -> Cookies {
    let mut cookies = Cookies::new();
    for line in headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()) {
        for cookie in Cookie::split_parse(line).flatten() {
            cookies.entry(cookie.name().to_owned()).or_insert_with(|| cookie.value().to_owned());
        }
    }
    cookies
}

/// Form parameters, each of which may be there once.
fn once(text: &[u8]) -> Result<Params, Repeated> {
    let mut params = Params::new();
    for (name, value) in form_urlencoded::parse(text) {
        if params.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Repeated);
        }
    }
    Ok(params)
}

/// Where the end user will be asked, as a person would name it.
fn authorize_host(registration: &Registration) -> Option<String> {
    registration.authorize_url.as_ref()?.fixed()?.host_str().map(str::to_owned)
}
