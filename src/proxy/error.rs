//! Everything that can go wrong with a call, and the one place that turns it into an answer (contract §5).

use super::View;
use super::context::{Context, REQUEST_ID};
use super::relay::ProxyBody;
use crate::base::problem::Problem;
use crate::config::{Bind, Snapshot};
use crate::identity::{EndUser, IdentityError};
use crate::limit::Refused;
use crate::token::{KeeperError, OwnFault};
use http::header::{ALLOW, CONNECTION, HeaderName, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Why a call got an answer of Attaché's own. Text in a variant is ours or the operator's; upstream words go to the log alone.
#[derive(Debug)]
pub enum ProxyError {
    EndUserMissing,
    EndUserInvalid(&'static str),
    BadPath(&'static str),
    BadRequest(&'static str),
    /// What was refused: `host`, `origin`, `sec-fetch-site`, `caller` or `route`.
    CallerRefused(&'static str),
    NoRoute,
    /// A URL in absolute form that no route's upstream is over; the host of one that it may have meant.
    NoUpstream {
        near: Option<String>,
    },
    /// A URL in absolute form that `X-Attache-Provider` must decide, or cannot.
    Undecided {
        why: &'static str,
        /// Names of routes and their providers.
        choices: String,
    },
    MethodNotAllowed {
        allow: Vec<Method>,
    },
    ConnectRefused,
    NotConnected {
        provider: Arc<str>,
        end_user: String,
        account: Option<String>,
    },
    ReconnectRequired {
        provider: Arc<str>,
        end_user: String,
        account: Option<String>,
    },
    /// The connection lacks a value that the route needs, or has one that leads where no token may go: to connect again mends both.
    ConnectionUnfit {
        provider: Arc<str>,
        end_user: String,
        account: Option<String>,
        fault: OwnFault,
    },
    BodyTooLarge {
        max: u64,
    },
    RateLimited(Refused),
    ProviderNotConfigured {
        provider: Arc<str>,
    },
    RefreshFailed {
        provider: Arc<str>,
        retry_after: Option<Duration>,
    },
    UpstreamUnreachable(String),
    UpstreamTimeout,
    UpstreamBadResponse(String),
    /// The answer came, and what the route wants done with it cannot be done.
    UpstreamUnfit {
        /// For the client: constant text.
        why: &'static str,
        /// For the log.
        detail: String,
    },
    /// The upstream's circuit is open.
    CircuitOpen {
        upstream: String,
        wait: Duration,
    },
    /// Which limit is reached: a sentence without its full stop.
    Overloaded(&'static str),
    StoreUnavailable,
    /// The keys by which end users' tokens are verified cannot be had.
    KeysUnavailable,
    Internal(String),
}

impl From<IdentityError> for ProxyError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Missing => ProxyError::EndUserMissing,
            IdentityError::Invalid(why) => ProxyError::EndUserInvalid(why),
        }
    }
}

impl ProxyError {
    pub(super) fn from_keeper(error: KeeperError, provider: &Arc<str>, end_user: Option<EndUser<'_>>) -> Self {
        let id = Arc::clone(provider);
        let Some(EndUser { name, account }) = end_user else {
            return match error {
                KeeperError::RefreshFailed { retry_after } => ProxyError::RefreshFailed { provider: id, retry_after },
                KeeperError::StoreUnavailable => ProxyError::StoreUnavailable,
                KeeperError::ProviderOff => ProxyError::ProviderNotConfigured { provider: id },
                // No end user stands behind the app's own token, so there is none to connect: it did not come, that is all.
                KeeperError::NotConnected | KeeperError::ReconnectRequired | KeeperError::Source { .. } => {
                    ProxyError::RefreshFailed { provider: id, retry_after: None }
                }
            };
        };
        let account_name = || account.map(str::to_owned);
        match error {
            KeeperError::NotConnected => ProxyError::NotConnected { provider: id, end_user: name.to_owned(), account: account_name() },
            KeeperError::ReconnectRequired => {
                ProxyError::ReconnectRequired { provider: id, end_user: name.to_owned(), account: account_name() }
            }
            // The same end user at the other provider: that is the connection to mend.
            KeeperError::Source { provider, error } => ProxyError::from_keeper(*error, &provider, end_user),
            KeeperError::RefreshFailed { retry_after } => ProxyError::RefreshFailed { provider: id, retry_after },
            KeeperError::StoreUnavailable => ProxyError::StoreUnavailable,
            KeeperError::ProviderOff => ProxyError::ProviderNotConfigured { provider: id },
        }
    }

    /// The error's name, status, title and `Proxy-Status` error: contract §5's table.
    pub(super) fn row(&self) -> (&'static str, StatusCode, &'static str, &'static str) {
        const DENIED: &str = "http_request_denied";
        const BAD: &str = "http_request_error";
        match self {
            Self::EndUserMissing => ("end-user-missing", StatusCode::BAD_REQUEST, "No end user named", DENIED),
            Self::EndUserInvalid(_) => ("end-user-invalid", StatusCode::BAD_REQUEST, "The end user's name is not valid", DENIED),
            Self::BadPath(_) => ("bad-path", StatusCode::BAD_REQUEST, "The path is refused", BAD),
            Self::BadRequest(_) | Self::Undecided { .. } => ("bad-request", StatusCode::BAD_REQUEST, "The request is not well formed", BAD),
            Self::CallerRefused(_) => ("caller-refused", StatusCode::FORBIDDEN, "The caller is refused", DENIED),
            Self::NoRoute | Self::NoUpstream { .. } => ("no-route", StatusCode::NOT_FOUND, "No route takes this request", DENIED),
            Self::MethodNotAllowed { .. } => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "No route takes this method", DENIED),
            Self::ConnectRefused => ("connect-refused", StatusCode::METHOD_NOT_ALLOWED, "CONNECT is refused", DENIED),
            Self::NotConnected { .. } => ("not-connected", StatusCode::UNAUTHORIZED, "The end user is not connected", DENIED),
            Self::ReconnectRequired { .. } | Self::ConnectionUnfit { .. } => {
                ("reconnect-required", StatusCode::UNAUTHORIZED, "The end user must connect again", DENIED)
            }
            Self::BodyTooLarge { .. } => ("body-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The request body is too large", DENIED),
            Self::RateLimited(_) => ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many calls", DENIED),
            Self::ProviderNotConfigured { .. } => {
                ("provider-not-configured", StatusCode::SERVICE_UNAVAILABLE, "The provider is not configured", "proxy_configuration_error")
            }
            Self::RefreshFailed { .. } => {
                ("refresh-failed", StatusCode::BAD_GATEWAY, "The token could not be refreshed", "proxy_internal_response")
            }
            Self::UpstreamUnreachable(_) => {
                ("upstream-unreachable", StatusCode::BAD_GATEWAY, "The upstream cannot be reached", "destination_unavailable")
            }
            Self::UpstreamTimeout => {
                ("upstream-timeout", StatusCode::GATEWAY_TIMEOUT, "The upstream did not answer in time", "http_response_timeout")
            }
            Self::UpstreamBadResponse(_) => {
                ("upstream-bad-response", StatusCode::BAD_GATEWAY, "The upstream's answer was no HTTP", "http_protocol_error")
            }
            Self::UpstreamUnfit { .. } => {
                ("upstream-bad-response", StatusCode::BAD_GATEWAY, "The upstream's answer cannot be used", "http_protocol_error")
            }
            Self::CircuitOpen { .. } => {
                ("circuit-open", StatusCode::SERVICE_UNAVAILABLE, "The upstream is not asked for a while", "destination_unavailable")
            }
            Self::Overloaded(_) => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too many calls at once", "proxy_internal_error"),
            Self::StoreUnavailable => {
                ("store-unavailable", StatusCode::SERVICE_UNAVAILABLE, "The token store is unavailable", "proxy_internal_error")
            }
            Self::KeysUnavailable => (
                "store-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The keys of end users' tokens are unavailable",
                "proxy_internal_error",
            ),
            Self::Internal(_) => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Attaché failed", "proxy_internal_error"),
        }
    }

    /// What happened and what to do, without anything that is secret.
    pub(super) fn detail(&self, snapshot: &Snapshot) -> String {
        let header = &snapshot.end_user.header;
        match self {
            Self::EndUserMissing if snapshot.end_user.jwt.is_some() => format!("Send the end user's signed token in the `{header}` header."),
            Self::EndUserMissing => format!("Name the end user in the `{header}` header."),
            Self::EndUserInvalid(why) => format!("The end user's name is refused: {why}."),
            Self::BadPath(why) => format!("The path is refused: {why}. Attaché forwards the exact bytes it matched, so it takes no path that servers read differently."),
            Self::BadRequest(why) => format!("{}.", sentence(why)),
            Self::CallerRefused("host") => "The Host header names no host of this listener. Add it to the listener's `hosts` if it should.".to_owned(),
            Self::CallerRefused("origin" | "sec-fetch-site") => {
                "The request comes from a web page. Call from a program, or name the page's origin in `listen.allowed_origins`.".to_owned()
            }
            Self::CallerRefused("route") => "This caller may not use this route; see `callers` in routes.yaml.".to_owned(),
            Self::CallerRefused(_) => "The caller's key is missing or wrong: send it in `X-Attache-Key`; see `callers` in routes.yaml.".to_owned(),
            Self::NoRoute => "No route in routes.yaml matches. `attache explain METHOD URL` shows what would.".to_owned(),
            Self::NoUpstream { near: None } => "The URL falls under no route's `upstream`. Through Attaché as a proxy go only URLs of upstreams whose routes end in `{*name}`; `attache explain METHOD URL` shows what takes one.".to_owned(),
            Self::NoUpstream { near: Some(host) } => format!("The URL falls under no route's `upstream`; `{host}` is the nearest host of one. `attache explain METHOD URL` shows what takes a URL."),
            Self::Undecided { why, choices } => format!("{}: {choices}.", sentence(why)),
            Self::MethodNotAllowed { allow } => {
                format!("Routes with this path take {}.", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
            }
            Self::ConnectRefused => {
                "Attaché attaches tokens, and nobody can look into a tunnel of HTTPS. Say `http://` in the upstream's URL and send it through this proxy: it goes on by TLS. Or call a route by its path, as in `curl http://localhost:7070/…`, or give an SDK a listener of its own with `listen.origins`.".to_owned()
            }
            Self::NotConnected { provider, .. } => format!("The end user has no connection to `{provider}`. The admin call in `connect` makes a link by which they can connect."),
            Self::ReconnectRequired { provider, .. } => format!("The end user's grant at `{provider}` has ended. The admin call in `connect` makes a link by which they can connect."),
            Self::ConnectionUnfit { provider, fault: OwnFault::Value(name), .. } => format!("The end user's connection to `{provider}` has no usable `{name}`, which this route's upstream needs. Connecting again asks for it; an import or the admin API can set it in the connection's metadata."),
            Self::ConnectionUnfit { provider, fault: OwnFault::Host, .. } => format!("The values of the end user's connection to `{provider}` make a host that its tokens may not be sent to: see `token_hosts`. Nothing was sent. Connecting again, or the connection's metadata, corrects them."),
            Self::BodyTooLarge { max } => format!("The route takes bodies of at most {max} bytes."),
            Self::RateLimited(Refused { scope, rate, .. }) => format!(
                "The route takes {} calls in {} s {}; see its `rate_limit`. Nothing was sent. Try again after `Retry-After`.",
                rate.calls,
                rate.per.as_secs(),
                if *scope == "user" { "of one end user" } else { "in all" },
            ),
            Self::ProviderNotConfigured { provider } => format!("`{provider}` is optional and a variable of its registration is not set; `attache check` names it."),
            Self::RefreshFailed { provider, .. } => format!("`{provider}` did not give a new access token just now, and none that is still valid is left. Nothing is lost: try again later; the log says why."),
            Self::UpstreamUnreachable(_) => "No connection to the upstream came about; the log says why.".to_owned(),
            Self::UpstreamTimeout => "The upstream did not answer within the route's `timeout`.".to_owned(),
            Self::UpstreamBadResponse(_) => "The upstream's connection broke or its answer was no HTTP; the log says more.".to_owned(),
            Self::UpstreamUnfit { why, .. } => format!("{}.", sentence(why)),
            Self::CircuitOpen { upstream, .. } => format!("`{upstream}` failed too often in a row: it is not asked for a while, then by one call at a time. `Retry-After` says when; the log says how it failed."),
            Self::Overloaded(why) => format!("{why}. Nothing was sent: try again in a moment."),
            Self::StoreUnavailable => "The connection could not be read or kept. Nothing is lost: try again later.".to_owned(),
            Self::KeysUnavailable => "The keys that end users' tokens are verified by (`end_user.jwt.jwks_url`) could not be fetched; the log says why. Try again later.".to_owned(),
            Self::Internal(_) => "This is a fault of Attaché's own; the log says more under this request's id.".to_owned(),
        }
    }

    /// The answer to the client, and a line in the log for what an operator should see.
    pub(super) fn into_response(self, view: &View, cx: Context) -> Response<ProxyBody> {
        let (name, status, title, proxy_error) = self.row();
        self.log(name, &cx);
        let may_name_token = cx.may_name_token();
        let mut problem = Problem::new(name, status, title, self.detail(&view.snapshot));
        problem.proxy_error = Some(proxy_error);
        problem.instance = cx.request_id.to_str().ok().map(str::to_owned);
        match &self {
            Self::NotConnected { provider, end_user, account }
            | Self::ReconnectRequired { provider, end_user, account }
            | Self::ConnectionUnfit { provider, end_user, account, .. } => {
                let end_user = if may_name_token { HIDDEN } else { end_user };
                problem.members.insert("connect".to_owned(), connect_call(&view.snapshot, provider, end_user, account.as_deref()));
                problem = problem.header(WWW_AUTHENTICATE, HeaderValue::from_static("Attache"));
            }
            Self::MethodNotAllowed { allow } => {
                let allow = allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                problem.headers.extend(HeaderValue::try_from(allow).ok().map(|allow| (ALLOW, allow)));
            }
            Self::ConnectRefused => {
                problem = problem.header(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
            }
            Self::RefreshFailed { retry_after: Some(wait), .. } => {
                problem = problem.header(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)))
            }
            Self::RateLimited(refused) => problem = limited(problem, refused),
            Self::ProviderNotConfigured { .. } => problem = problem.header(RETRY_AFTER, HeaderValue::from(60)),
            Self::CircuitOpen { wait, .. } => {
                problem = problem.header(RETRY_AFTER, HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
            }
            Self::Overloaded(_) => problem = problem.header(RETRY_AFTER, HeaderValue::from(1)),
            Self::StoreUnavailable => problem = problem.header(RETRY_AFTER, HeaderValue::from(1)),
            Self::KeysUnavailable => problem = problem.header(RETRY_AFTER, HeaderValue::from(10)),
            // The rest of a body that is too large is not worth reading.
            Self::BodyTooLarge { .. } => problem = problem.header(CONNECTION, HeaderValue::from_static("close")),
            _ => {}
        }
        let problem = problem.header(VARY, view.vary.clone()).header(REQUEST_ID, cx.request_id.clone());
        let (head, body) = problem.into_response().into_parts();
        if let Some(account) = cx.take_account() {
            account.tell(status.as_u16(), body.len() as u64, true, Some(name));
        }
        Response::from_parts(head, ProxyBody::Own(Some(body)))
    }

    /// Once, at the edge. What the client did wrong is its own business and stands in the call line.
    fn log(&self, name: &'static str, cx: &Context) {
        let id = cx.request_id.to_str().unwrap_or_default();
        match self {
            Self::UpstreamUnreachable(why) | Self::UpstreamBadResponse(why) => {
                tracing::warn!(request.id = id, error = name, why = %why.escape_debug(), "upstream failed")
            }
            Self::UpstreamUnfit { why, detail } => {
                tracing::warn!(request.id = id, error = name, why, detail = %detail.escape_debug(), "upstream failed")
            }
            Self::UpstreamTimeout => tracing::warn!(request.id = id, error = name, "upstream failed"),
            Self::Internal(why) => tracing::error!(request.id = id, error = name, why = %why.escape_debug(), "internal failure"),
            Self::RefreshFailed { provider, .. } => {
                tracing::warn!(request.id = id, error = name, provider.id = %provider, "call failed for want of a token")
            }
            Self::ConnectionUnfit { provider, fault, .. } => {
                let lacks = match fault {
                    OwnFault::Value(name) => &**name,
                    OwnFault::Host => "host",
                };
                tracing::warn!(request.id = id, error = name, provider.id = %provider, connection.lacks = lacks, "a connection does not fit its route")
            }
            Self::StoreUnavailable => tracing::error!(request.id = id, error = name, "call failed for want of the store"),
            Self::KeysUnavailable => tracing::warn!(request.id = id, error = name, "call failed for want of the keys of end users' tokens"),
            _ => {}
        }
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `Retry-After`, and the fields of draft-ietf-httpapi-ratelimit-headers-10 §3 and §4. On refusals alone: on other answers these are the API's.
fn limited(problem: Problem, refused: &Refused) -> Problem {
    let (scope, wait_s) = (refused.scope, refused.wait_s());
    let policy = format!("\"{scope}\";q={};w={}", refused.rate.calls, refused.rate.per.as_secs());
    let now = format!("\"{scope}\";r=0;t={wait_s}");
    let mut problem = problem.header(RETRY_AFTER, HeaderValue::from(wait_s));
    let fields = [(RATELIMIT_POLICY, HeaderValue::try_from(policy)), (RATELIMIT, HeaderValue::try_from(now))];
    problem.headers.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value.ok()?))));
    problem
}

/// What stands for a name that may be a token.
const HIDDEN: &str = "…";

/// The admin call that makes a connect link (contract §5).
fn connect_call(snapshot: &Snapshot, provider: &str, end_user: &str, account: Option<&str>) -> Value {
    let listener = &snapshot.startup.admin;
    let scheme = if listener.tls { "https" } else { "http" };
    let admin = listener.binds.iter().find_map(|bind| match bind {
        Bind::Tcp(address) => Some(format!("{scheme}://{address}")),
        Bind::Unix(_) => None,
    });
    let mut body = json!({"end_user": end_user, "providers": [provider]});
    if let Some(account) = account {
        body["account"] = account.into();
    }
    json!({
        "method": "POST",
        "url": format!("{}/v1/connect-sessions", admin.unwrap_or_else(|| "http://127.0.0.1:7072".to_owned())),
        "body": body,
    })
}
