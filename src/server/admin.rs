//! The admin listener: health, reload, and what is live. Operators and the client app's back end call it; no browser page does.

use super::control::ControlPeer;
use crate::base::problem::Problem;
use crate::base::secret::Secret;
use crate::config::{AdminToken, ConfigErrors, Guard, Live};
use crate::proxy::Peer;
use crate::proxy::explain;
use crate::store::Records;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the admin and health listeners answer from.
pub struct Admin {
    live: Arc<Live>,
    records: Records,
    tokens: Vec<AdminToken>,
    /// Who may call by `Host` and `Origin`, as on the proxy.
    guard: Guard,
}

impl Admin {
    pub fn new(live: Arc<Live>, records: Records, tokens: Vec<AdminToken>, hosts: Vec<Box<str>>) -> Arc<Self> {
        Arc::new(Admin { live, records, tokens, guard: Guard { hosts, allowed_origins: Vec::new() } })
    }

    /// Answers one call of the admin listener.
    pub async fn handle(self: Arc<Self>, peer: ControlPeer, request: Request<Incoming>) -> Response<Bytes> {
        let (head, _body) = request.into_parts();
        let from = Peer { unix: peer.ip.is_none(), uid: peer.uid, bound: peer.bound };
        if crate::proxy::check_guard(&self.guard, &from, &head).is_err() {
            let detail = "The Host or Origin is not one that may call the admin API.";
            return Problem::new("forbidden", StatusCode::FORBIDDEN, "The caller is refused", detail).into_response();
        }
        let health_open = peer.ip.is_none_or(|ip| ip.is_loopback());
        if health_open && let Some(answer) = self.health(head.uri.path()) {
            return answer;
        }
        let Some(allow) = self.authorized(&head.headers) else {
            let detail = "Send the admin token: `Authorization: Bearer TOKEN`. It is in the file that `admin.token_file` names.";
            return Problem::new("unauthorized", StatusCode::UNAUTHORIZED, "No valid admin token", detail)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
                .into_response();
        };
        let needed = if head.method == Method::POST { "write" } else { "read" };
        if !allow.iter().any(|allowed| **allowed == *needed) {
            let detail = format!("This admin token's `allow` does not hold `{needed}`.");
            return Problem::new("forbidden", StatusCode::FORBIDDEN, "The token may not do this", detail).into_response();
        }
        self.authorized_call(&head).await
    }

    /// `/healthz` and `/readyz`: all that the health listener knows, with any `Host` and no token.
    pub fn health(&self, path: &str) -> Option<Response<Bytes>> {
        match path {
            "/healthz" => Some(text(StatusCode::OK, "ok\n")),
            "/readyz" => Some(match self.records.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(error) => {
                    tracing::warn!(%error, "not ready");
                    text(StatusCode::SERVICE_UNAVAILABLE, "the store is unavailable\n")
                }
            }),
            _ => None,
        }
    }

    /// What the request's token allows; `None` without a valid one.
    fn authorized(&self, headers: &HeaderMap) -> Option<&[Box<str>]> {
        let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        // Every token is compared, so that the time tells nothing of which one was close.
        let mut known = None;
        for token in &self.tokens {
            if token.token.matches(given.as_bytes()) {
                known = Some(token);
            }
        }
        known.filter(|_| scheme.eq_ignore_ascii_case("bearer")).map(|token| &*token.allow)
    }

    async fn authorized_call(&self, head: &http::request::Parts) -> Response<Bytes> {
        let path = head.uri.path();
        let get = matches!(head.method, Method::GET | Method::HEAD);
        match path {
            "/healthz" | "/readyz" => self.health(path).unwrap_or_else(not_found),
            "/v1/reload" if head.method == Method::POST => self.reload().await,
            "/v1/reload" => not_allowed("POST"),
            "/v1/routes" if get => self.routes(),
            "/v1/providers" if get => self.providers(),
            "/v1/explain" if get => self.explain(head.uri.query().unwrap_or_default()),
            "/v1/routes" | "/v1/providers" | "/v1/explain" => not_allowed("GET, HEAD"),
            _ => not_found(),
        }
    }

    async fn reload(&self) -> Response<Bytes> {
        let live = Arc::clone(&self.live);
        // Reading and checking files blocks.
        let reloaded = tokio::task::spawn_blocking(move || live.reload()).await;
        match reloaded {
            Ok(Ok(done)) => json_answer(StatusCode::OK, &json!({"generation": done.generation, "restart_required": done.restart_required})),
            Ok(Err(errors)) => json_answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({"errors": errors_json(&errors)})),
            Err(_) => {
                let detail = "The reload broke off; the old config stays. The log says more.";
                Problem::new("internal", StatusCode::INTERNAL_SERVER_ERROR, "Attaché failed", detail).into_response()
            }
        }
    }

    fn routes(&self) -> Response<Bytes> {
        let snapshot = self.live.snapshot();
        let items: Vec<Value> = snapshot
            .route_list
            .iter()
            .map(|route| {
                json!({
                    "name": route.name, "match": route.matches, "upstream": snapshot.masked(&route.upstream),
                    "provider": route.provider.as_ref().map(|provider| &*provider.id),
                    "attach": explain::scheme_words(&route.attach),
                })
            })
            .collect();
        json_answer(StatusCode::OK, &json!({"generation": snapshot.generation, "items": items}))
    }

    fn providers(&self) -> Response<Bytes> {
        let snapshot = self.live.snapshot();
        let items: Vec<Value> = snapshot
            .providers
            .values()
            .map(|provider| {
                json!({
                    "id": &*provider.id, "definition": provider.definition, "display_name": provider.display_name,
                    "on": provider.off.is_none(), "off_because": provider.off,
                })
            })
            .collect();
        json_answer(StatusCode::OK, &json!({"items": items}))
    }

    fn explain(&self, query: &str) -> Response<Bytes> {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref());
        let method = value("method").unwrap_or("GET").parse::<Method>().map_err(|_| "`method` is no HTTP method".to_owned());
        let url = value("url").ok_or_else(|| "`url` is missing".to_owned());
        let explained = method.and_then(|method| explain::explain(&self.live.snapshot(), &method, url?));
        match explained {
            Ok(explained) => json_answer(StatusCode::OK, &explained.to_json()),
            Err(why) => Problem::new("invalid-request", StatusCode::BAD_REQUEST, "The request is not valid", why).into_response(),
        }
    }
}

/// The health listener: `/healthz` and `/readyz`, whatever the `Host`.
pub fn health_only(admin: &Admin, request: &Request<Incoming>) -> Response<Bytes> {
    admin.health(request.uri().path()).unwrap_or_else(not_found)
}

/// A token with every permission, for a token file or `admin.token`.
pub fn whole_token(token: Secret) -> AdminToken {
    AdminToken { name: "admin".into(), token, allow: ["connect", "read", "write"].map(Into::into).into() }
}

fn errors_json(errors: &ConfigErrors) -> Vec<Value> {
    let one = |error: &crate::config::ConfigError| json!({"file": error.file.display().to_string(), "line": error.line, "column": error.column, "message": error.message, "hint": error.hint});
    errors.0.iter().map(one).collect()
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    answer(status, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, body: &'static str) -> Response<Bytes> {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_found() -> Response<Bytes> {
    Problem::new("not-found", StatusCode::NOT_FOUND, "Nothing is here", "The admin API has no such path in this version.").into_response()
}

fn not_allowed(allow: &'static str) -> Response<Bytes> {
    let detail = format!("This path takes {allow}.");
    Problem::new("invalid-request", StatusCode::METHOD_NOT_ALLOWED, "Not this method", detail)
        .header(ALLOW, HeaderValue::from_static(allow))
        .into_response()
}
