//! The authorization endpoint: checks a request, asks the user, and sends the browser back with a code or an error (RFC 6749 §4.1).

use crate::base::clock::UnixMillis;
use crate::base::ids::random_token;
use crate::sandbox::core::Core;
use crate::sandbox::form::Form;
use crate::sandbox::grants::{Approval, is_pkce_text};
use crate::sandbox::refused::Refused;
use crate::sandbox::respond::{Answer, bare, method_not_allowed, no_store, set};
use crate::sandbox::settings::Settings;
use crate::sandbox::token::asked_scopes;
use crate::sandbox::{oauth1, pages};
use http::header::LOCATION;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a consent page may lie open.
const TICKET_LIFE: Duration = Duration::from_secs(600);
/// How many consent pages may lie open at once.
const TICKETS_MAX: usize = 1_024;
/// The longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 256;

/// A request that has been checked and waits for the user's word.
pub(super) struct Asked {
    pub(super) approval: Approval,
    state: Option<String>,
    /// OAuth 1.0a's temporary token, where it is that protocol's request.
    temporary: Option<String>,
}

impl Asked {
    pub(super) fn of_oauth1(approval: Approval, token: String) -> Self {
        Asked { approval, state: None, temporary: Some(token) }
    }
}

/// The requests whose consent pages lie open. A ticket is what binds a decision to the page it was made on, so no other page can decide.
#[derive(Default)]
pub(super) struct Tickets(HashMap<String, (Asked, UnixMillis)>);

impl Tickets {
    pub(super) fn add(&mut self, asked: Asked, now: UnixMillis) -> String {
        if self.0.len() >= TICKETS_MAX {
            self.0.retain(|_, (_, since)| now.since(*since) < TICKET_LIFE);
        }
        if self.0.len() >= TICKETS_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(ticket, _)| ticket.clone())
        {
            self.0.remove(&oldest);
        }
        let ticket = random_token();
        self.0.insert(ticket.clone(), (asked, now));
        ticket
    }

    fn take(&mut self, ticket: &str, now: UnixMillis) -> Option<Asked> {
        self.0.remove(ticket).filter(|(_, since)| now.since(*since) < TICKET_LIFE).map(|(asked, _)| asked)
    }
}

/// How a request ends before anybody is asked.
enum Fault {
    /// The client or its redirect URI is wrong: the user is told, and the browser is sent nowhere (RFC 6749 §4.1.2.1).
    Told(&'static str),
    Sent {
        redirect_uri: String,
        state: Option<String>,
        error: &'static str,
        description: String,
    },
}

pub(super) async fn authorize(core: &Core, request: Request<Incoming>) -> Answer {
    match *request.method() {
        Method::GET | Method::HEAD => ask(core, request.uri().query().unwrap_or_default()),
        Method::POST => {
            let (parts, body) = request.into_parts();
            match Form::read(&parts.headers, body).await {
                Ok(form) => decide(core, &form),
                Err(why) => pages::problem(StatusCode::BAD_REQUEST, &why.to_string()),
            }
        }
        _ => method_not_allowed("GET, HEAD, POST"),
    }
}

fn ask(core: &Core, query: &str) -> Answer {
    core.counters.authorizations.fetch_add(1, Relaxed);
    let settings = core.settings();
    let Ok(form) = Form::parse(query.as_bytes()) else {
        return pages::problem(StatusCode::BAD_REQUEST, "a parameter is there twice");
    };
    let asked = match check(&settings, &form) {
        Ok(asked) => asked,
        Err(Fault::Told(what)) => return pages::problem(StatusCode::BAD_REQUEST, what),
        Err(Fault::Sent { redirect_uri, state, error, description }) => {
            return send_back(core, &redirect_uri, state.as_deref(), &[("error", error), ("error_description", &description)]);
        }
    };
    let hint = form.get("login_hint").filter(|user| is_user(user));
    match (form.get("prompt"), hint) {
        (Some("none"), Some(user)) => approve(core, &asked, user),
        (Some("none"), None) => {
            let why = [("error", "login_required"), ("error_description", "prompt=none needs a login_hint here")];
            send_back(core, &asked.approval.redirect_uri, asked.state.as_deref(), &why)
        }
        _ => {
            let approval = asked.approval.clone();
            let ticket = core.tickets().add(asked, core.now());
            pages::consent(&settings, &approval, &ticket, hint)
        }
    }
}

/// All that RFC 6749 §4.1.1, RFC 7636 §4.3 and RFC 9700 §2.1 ask of a request.
fn check(settings: &Settings, form: &Form) -> Result<Asked, Fault> {
    let client = form.get("client_id").and_then(|id| settings.client(id)).ok_or(Fault::Told("The client_id is unknown here."))?;
    let redirect_uri = form.get("redirect_uri").ok_or(Fault::Told("The redirect_uri is missing."))?;
    if !client.may_redirect_to(redirect_uri) {
        return Err(Fault::Told("The redirect_uri is not registered for this client."));
    }
    let state = form.get("state").map(str::to_owned);
    let fault = |error: &'static str, description: &str| Fault::Sent {
        redirect_uri: redirect_uri.to_owned(),
        state: state.clone(),
        error,
        description: description.to_owned(),
    };
    match form.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(fault("unsupported_response_type", "only response_type=code is known here")),
        None => return Err(fault("invalid_request", "response_type is missing")),
    }
    if form.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(fault("invalid_request", "only response_mode=query is known here"));
    }
    let challenge = form.get("code_challenge");
    match (challenge, form.get("code_challenge_method")) {
        (Some(text), Some("S256")) if is_pkce_text(text) => {}
        (Some(_), Some("S256")) => return Err(fault("invalid_request", "code_challenge is malformed")),
        (Some(_), _) => return Err(fault("invalid_request", "code_challenge_method must be S256")),
        (None, Some(_)) => return Err(fault("invalid_request", "code_challenge is missing")),
        (None, None) if settings.require_pkce || client.secret.is_none() => {
            return Err(fault("invalid_request", "code_challenge is required"));
        }
        (None, None) => {}
    }
    let scopes = asked_scopes(settings, form.get("scope")).map_err(|why: Refused| fault(why.code(), &why.to_string()))?;
    let approval =
        Approval { client_id: client.id.clone(), redirect_uri: redirect_uri.to_owned(), scopes, challenge: challenge.map(str::to_owned) };
    Ok(Asked { approval, state, temporary: None })
}

fn decide(core: &Core, form: &Form) -> Answer {
    let Some(asked) = form.get("ticket").and_then(|ticket| core.tickets().take(ticket, core.now())) else {
        return pages::problem(StatusCode::BAD_REQUEST, "This page has expired, or was used before. Start again from the app.");
    };
    match (form.get("decision"), chosen_user(form)) {
        (Some("allow"), None) => pages::problem(StatusCode::BAD_REQUEST, "No user was chosen. Start again from the app."),
        (decision, user) if let Some(token) = &asked.temporary => {
            oauth1::decide(core, &asked, token, user.filter(|_| decision == Some("allow")))
        }
        (Some("allow"), Some(user)) => approve(core, &asked, user),
        _ => {
            let denied = [("error", "access_denied"), ("error_description", "the user said no")];
            send_back(core, &asked.approval.redirect_uri, asked.state.as_deref(), &denied)
        }
    }
}

/// The name typed on a page, else the one picked there.
pub(super) fn chosen_user(form: &Form) -> Option<&str> {
    form.get("other_user").or_else(|| form.get("user")).filter(|user| is_user(user))
}

pub(super) fn is_user(user: &str) -> bool {
    !user.is_empty() && user.len() <= USER_BYTES_MAX && !user.chars().any(char::is_control)
}

fn approve(core: &Core, asked: &Asked, user: &str) -> Answer {
    let code = core.grants().add_code(asked.approval.clone(), user, core.now());
    send_back(core, &asked.approval.redirect_uri, asked.state.as_deref(), &[("code", &code)])
}

/// 303 to the client, with `state` as it came and `iss` (RFC 9207 §2). The redirect URI keeps its own query.
fn send_back(core: &Core, redirect_uri: &str, state: Option<&str>, pairs: &[(&str, &str)]) -> Answer {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    if let Some(state) = state {
        query.append_pair("state", state);
    }
    query.append_pair("iss", &core.issuer);
    to(redirect_uri, &query.finish())
}

/// 303 to a redirect URI with these parameters.
pub(super) fn send_to(redirect_uri: &str, pairs: &[(&str, &str)]) -> Answer {
    to(redirect_uri, &form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn to(redirect_uri: &str, query: &str) -> Answer {
    let joint = if redirect_uri.contains('?') { '&' } else { '?' };
    let mut response = bare(StatusCode::SEE_OTHER);
    set(response.headers_mut(), LOCATION, &format!("{redirect_uri}{joint}{query}"));
    no_store(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::settings::Client;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn check_query(query: &str, expected: Result<(), &str>) {
        let clients = vec![Client::new("app", Some("s"), &["https://app.example.com/cb"])];
        let settings = Settings { clients, ..Settings::default() };
        let query = query.replace("APP", "client_id=app&redirect_uri=https://app.example.com/cb").replace("CH", CHALLENGE);
        let form = Form::parse(query.as_bytes()).expect("a query");
        let found = check(&settings, &form).map(drop).map_err(|fault| match fault {
            Fault::Told(_) => "told",
            Fault::Sent { error, .. } => error,
        });
        assert_eq!(found, expected, "{query}");
    }

    #[test]
    fn requests_are_checked_in_order() {
        check_query("APP&response_type=code&code_challenge=CH&code_challenge_method=S256", Ok(()));
        check_query("APP&response_type=code&code_challenge=CH&code_challenge_method=S256&scope=photos.read+profile", Ok(()));
        check_query("client_id=nobody", Err("told"));
        check_query("client_id=app", Err("told"));
        check_query("client_id=app&redirect_uri=https://evil.example/cb", Err("told"));
        check_query("APP", Err("invalid_request"));
        check_query("APP&response_type=token", Err("unsupported_response_type"));
        check_query("APP&response_type=code", Err("invalid_request"));
        check_query("APP&response_type=code&code_challenge=CH", Err("invalid_request"));
        check_query("APP&response_type=code&code_challenge=CH&code_challenge_method=plain", Err("invalid_request"));
        check_query("APP&response_type=code&code_challenge=short&code_challenge_method=S256", Err("invalid_request"));
        check_query("APP&response_type=code&code_challenge=CH&code_challenge_method=S256&scope=root", Err("invalid_scope"));
        check_query("APP&response_type=code&code_challenge=CH&code_challenge_method=S256&response_mode=fragment", Err("invalid_request"));
    }

    #[test]
    fn open_pages_have_a_limit_and_an_end() {
        let approval = Approval { client_id: "app".into(), redirect_uri: String::new(), scopes: Vec::new(), challenge: None };
        let asked = || Asked { approval: approval.clone(), state: None, temporary: None };
        let mut tickets = Tickets::default();
        let first = tickets.add(asked(), UnixMillis(1));
        let late = tickets.add(asked(), UnixMillis(2));
        for _ in 0..TICKETS_MAX {
            tickets.add(asked(), UnixMillis(3));
        }
        assert_eq!(tickets.0.len(), TICKETS_MAX);
        assert!(tickets.take(&first, UnixMillis(3)).is_none());
        assert!(tickets.take(&late, UnixMillis(3)).is_none());
        let open = tickets.add(asked(), UnixMillis(4));
        assert!(tickets.take(&open, UnixMillis(5)).is_some());
        assert!(tickets.take(&open, UnixMillis(5)).is_none(), "single use");
    }
}
