//! Accepts connections, and leads each request to its endpoint.

use crate::sandbox::core::Core;
use crate::sandbox::respond::{Answer, Hangup, api_error, json, method_not_allowed};
use crate::sandbox::token::DEVICE_GRANT;
use crate::sandbox::{STOP_WITHIN, api, authorize, control, device, oauth1, pages, token};
use http::header::{HOST, HeaderName};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

const CONNECTIONS_MAX: usize = 16_384;
/// How long a connection may lie idle or take over a header block.
const HEADER_WITHIN: Duration = Duration::from_secs(120);

/// Serves until told to stop. All connections belong to this task, so that its end is theirs.
pub(super) async fn accept(listener: TcpListener, core: Arc<Core>, mut stopped: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Losing either is safe: a connection that nobody accepted stays in the backlog, and a finished task has nothing to say.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (core, stopped) = (core.clone(), stopped.clone());
                connections.spawn(async move {
                    serve(stream, core, stopped).await;
                    drop(permit);
                });
            }
            Err(why) => {
                tracing::warn!(error = %why, "the sandbox could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STOP_WITHIN, all).await;
}

async fn serve(stream: TcpStream, core: Arc<Core>, mut stopped: watch::Receiver<bool>) {
    // Answers are small; without this the kernel may hold their last part back.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let core = core.clone();
        async move { handle(&core, request).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(why) = ended {
        tracing::debug!(error = %why, "a connection of the sandbox broke off");
    }
}

async fn handle(core: &Core, request: Request<Incoming>) -> Result<Answer, Hangup> {
    let path = request.uri().path().to_owned();
    if let Some(rest) = path.strip_prefix("/v1/") {
        return api::call(core, request, rest).await;
    }
    if let Some(rest) = path.strip_prefix("/oauth1/").filter(|rest| *rest != "authorize") {
        return oauth1::call(core, request, rest).await;
    }
    if path == "/token" {
        return token::token(core, request).await;
    }
    if let Some(refused) = foreign(&request) {
        return Ok(refused);
    }
    Ok(match path.as_str() {
        "/" => pages::home(&core.issuer),
        "/oauth1/authorize" if *request.method() != Method::POST => return oauth1::call(core, request, "authorize").await,
        // One form decides for both protocols.
        "/authorize" | "/oauth1/authorize" => authorize::authorize(core, request).await,
        "/revoke" => token::revoke(core, request).await,
        "/introspect" => token::introspect(core, request).await,
        "/device_authorization" => device::begin(core, request).await,
        "/device" => device::page(core, request).await,
        "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration" => match *request.method() {
            Method::GET | Method::HEAD => metadata(core),
            _ => method_not_allowed("GET, HEAD"),
        },
        "/control" => control::control(core, request).await,
        "/control/grants" => control::grants(core, request).await,
        _ => api_error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
    })
}

/// Refuses what another site's page sent: a rebound name in `Host`, or a POST that a browser says came from elsewhere.
fn foreign(request: &Request<Incoming>) -> Option<Answer> {
    let site = request.headers().get(HeaderName::from_static("sec-fetch-site")).map(|value| value.as_bytes());
    let elsewhere = *request.method() == Method::POST && matches!(site, Some(b"cross-site" | b"same-site"));
    (elsewhere || !names_loopback(request.headers()))
        .then(|| api_error(StatusCode::FORBIDDEN, "forbidden", "the sandbox is for this machine's own programs and pages"))
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let authority = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let name = name.to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// RFC 8414 §2.
fn metadata(core: &Core) -> Answer {
    let (issuer, settings) = (&core.issuer, core.settings());
    let client_auth = json!(["client_secret_basic", "client_secret_post", "none"]);
    json(
        StatusCode::OK,
        &json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "introspection_endpoint": format!("{issuer}/introspect"),
            "device_authorization_endpoint": format!("{issuer}/device_authorization"),
            "scopes_supported": settings.scopes,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", DEVICE_GRANT],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": client_auth,
            "revocation_endpoint_auth_methods_supported": client_auth,
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": true,
        }),
    )
}
