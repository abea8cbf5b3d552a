//! One call's exchange with its upstream: build the request, attach last, send, and repeat it only where that is safe.

use super::body::{OutBody, Upload};
use super::context::Context;
use super::error::ProxyError;
use super::expect;
use super::expired::{self, Held};
use super::follow::{Answered, Asked, Hops, discard};
use super::relay::{ProxyBody, Relay};
use super::retry::Retries;
use super::tunnel::{Tunnels, Wish};
use super::{Target, View, after, headers, location, nonce, send};
use crate::attach::{Around, Needs, Place, oauth1};
use crate::base::clock::Clock;
use crate::config::{RouteOrigin, Timeouts};
use crate::identity::EndUser;
use crate::token::{Own, OwnFault, Token};
use crate::upstream::{ConnectFault, Lease, Origin, Pool, SendFault, Stage, Unsent, Upgrades};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a call is, before its token.
pub(super) struct Call<'c> {
    pub(super) view: &'c Rc<View>,
    pub(super) cx: &'c Context,
    pub(super) head: &'c http::request::Parts,
    pub(super) target: &'c Target<'c>,
    /// Whose token it carries, where it is an end user's.
    pub(super) end_user: Option<EndUser<'c>>,
    pub(super) clock: &'c dyn Clock,
}

impl Call<'_> {
    /// The connection's own part of the call, where there is one.
    fn own(&self, token: Option<&Token>) -> Result<Option<Arc<Own>>, ProxyError> {
        let route = self.target.route;
        if !route.has_own {
            return Ok(None);
        }
        let (Some(provider), Some(token)) = (&route.provider, token) else { return Ok(None) };
        let own = token.own(provider);
        own.meets(&route.needs).map_err(|fault| self.unusable(fault))?;
        Ok(Some(own))
    }

    /// Where it goes. Borrowed where the route says it, for the count of a shared `Arc` is written by all workers.
    fn origin(&self, own: Option<&Own>) -> Result<Cow<'_, Arc<Origin>>, ProxyError> {
        match (&self.target.route.origin, own) {
            (RouteOrigin::Fixed(origin), _) => Ok(Cow::Borrowed(origin)),
            (RouteOrigin::PerConnection(template), Some(own)) => own.origin(template).map(Cow::Owned).map_err(|fault| self.unusable(fault)),
            (RouteOrigin::PerConnection(_), None) => Err(ProxyError::Internal("a host of a connection's without one".to_owned())),
        }
    }

    /// Whether it goes upstream with a form: by the headers that are really sent, for a route may set their kind.
    pub(super) fn sends_form(&self, token: Option<&Token>) -> Result<bool, ProxyError> {
        let own = self.own(token)?;
        let origin = self.origin(own.as_deref())?;
        let with_own = own.as_deref().map(|own| self.target.with(own));
        Ok(oauth1::is_form(&self.headers(with_own.as_ref().unwrap_or(self.target), &origin)?))
    }

    fn headers(&self, target: &Target<'_>, origin: &Origin) -> Result<HeaderMap, ProxyError> {
        headers::outgoing(self.view, self.cx, &self.head.headers, target, origin).map_err(send::bad_path)
    }

    fn unusable(&self, fault: OwnFault) -> ProxyError {
        let provider = self.target.route.provider.as_ref().map(|provider| Arc::clone(&provider.id)).unwrap_or_default();
        match self.end_user {
            Some(EndUser { name, account }) => {
                ProxyError::ConnectionUnfit { provider, end_user: name.to_owned(), account: account.map(str::to_owned), fault }
            }
            // The app's own token has no values but those of the config, which were checked with it.
            None => ProxyError::Internal(format!("a route of the app's own token needs what no config gives: {fault:?}")),
        }
    }
}

/// Sends the call and answers with what came back.
///
/// Three repeats are possible, each at most once: with the nonce that a server wants in proofs, after a 401 to a token that `rejected` could
/// replace, and after an idle connection turned out closed under an idempotent request without a body. Further ones are the route's `retry`;
/// they go with the token that is `fresh` after their wait.
pub(super) async fn forward(
    (pool, hops): (&Rc<Pool<OutBody>>, &Hops),
    call: Call<'_>,
    mut token: Option<Arc<Token>>,
    (mut body, upload): (OutBody, Option<Rc<Upload>>),
    wish: Option<(Wish, &Rc<Tunnels>)>,
    (rejected, fresh): (impl AsyncFn(&Arc<Token>) -> Option<Arc<Token>>, impl AsyncFn() -> Result<Option<Arc<Token>>, ProxyError>),
) -> Result<Response<ProxyBody>, ProxyError> {
    let route = call.target.route;
    let deadline = route.timeouts.total.map(|total| Instant::now() + total);
    let mut retries = Retries::of(route, call.head, deadline);
    let mut until = expect::Until(upload.clone());
    let (mut stale_once, mut rejected_once, mut nonce_once) = (false, false, false);
    loop {
        // Anew for each token: a newer one may be of a connection that was made again since.
        let own = call.own(token.as_deref())?;
        let origin = &*call.origin(own.as_deref())?;
        let pool = match &route.origin {
            RouteOrigin::Fixed(_) => pool,
            RouteOrigin::PerConnection(_) => hops.own(origin),
        };
        let mut request = build(&call, (token.as_deref(), own.as_deref()), origin, body)?;
        if let Some((wish, _)) = &wish {
            wish.say(request.headers_mut());
            request.extensions_mut().insert(Upgrades);
        }
        expect::say(&mut request);
        let path = route.special.is_some().then(|| request.uri().path().to_owned());
        call.cx.sending();
        match exchange(pool, origin, &route.timeouts, deadline, request, upload.as_deref()).await {
            Ok((mut response, lease)) => {
                call.cx.answered();
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return match wish {
                        Some((wish, tunnels)) if wish.is_granted(response.headers()) => {
                            Ok(switch(&call, wish, tunnels, (response, lease), deadline))
                        }
                        // Passed on, this would open a tunnel that nobody asked for (RFC 9110 §7.8).
                        _ => Err(ProxyError::UpstreamBadResponse("it switched protocols unasked".to_owned())),
                    };
                }
                if let Some(upload) = &upload {
                    expect::answered(upload);
                }
                let wants_nonce = nonce::learn(route, origin, token.as_deref(), &response);
                if wants_nonce
                    && !nonce_once
                    && let Some(again) = again(upload.as_ref())
                {
                    nonce_once = true;
                    call.cx.replayed();
                    body = again;
                    continue;
                }
                let mut held = Held::new();
                // A wish for a nonce says nothing against the token: no refresh would mend it.
                if !rejected_once
                    && !wants_nonce
                    && let Some(used) = &token
                    && is_expired(&call, &mut response, deadline, &mut held).await?
                    && upload.as_ref().is_none_or(|upload| upload.may_replay())
                    && let Some(newer) = rejected(used).await
                    // Last, because it takes the body from this exchange.
                    && let Some(again) = again(upload.as_ref())
                {
                    rejected_once = true;
                    call.cx.replayed();
                    (token, body) = (Some(newer), again);
                    continue;
                }
                if let Some(wait) = retries.after_answer(response.status(), response.headers(), || call.clock.now())
                    && let Some(again) = again(upload.as_ref())
                {
                    discard(Answered { response, held, lease });
                    call.cx.replayed();
                    body = again;
                    token = after_wait(wait, deadline, &fresh).await?;
                    continue;
                }
                // The answer's body takes it on.
                until.0 = None;
                if let Some(special) = &route.special {
                    let asked = Asked { origin, path: path.unwrap_or_default() };
                    let answered = Answered { response, held, lease };
                    return after::finish(hops, &call, special, &asked, answered, upload, deadline).await;
                }
                return Ok(answer(&call, Answered { response, held, lease }, upload, deadline));
            }
            Err((Failed::Send(SendFault::Refused), _)) if !stale_once && upload.is_none() => {
                stale_once = true;
                body = OutBody::Empty;
            }
            Err((Failed::Send(SendFault::Stale), _)) if !stale_once && upload.is_none() && call.head.method.is_idempotent() => {
                stale_once = true;
                pool.distrust(origin);
                body = OutBody::Empty;
            }
            Err((failed, unsent)) => {
                let Some((wait, again)) = retries.after_failure(&failed).zip(unsent.or_else(|| again(upload.as_ref()))) else {
                    return Err(failed.into_error(origin, upload.as_deref(), route.body_max));
                };
                call.cx.replayed();
                body = again;
                token = after_wait(wait, deadline, &fresh).await?;
            }
        }
    }
}

/// Waits before another attempt, and then for a token that is good: the one at hand may have run out.
async fn after_wait(
    wait: Duration,
    deadline: Option<Instant>,
    fresh: &impl AsyncFn() -> Result<Option<Arc<Token>>, ProxyError>,
) -> Result<Option<Arc<Token>>, ProxyError> {
    tokio::time::sleep(wait).await;
    match deadline {
        None => fresh().await,
        Some(deadline) => tokio::time::timeout_at(deadline, fresh()).await.unwrap_or(Err(ProxyError::UpstreamTimeout)),
    }
}

/// Whether the upstream says that the token is no good: by a 401, or as its provider's `expired_when` knows it.
async fn is_expired(
    call: &Call<'_>,
    response: &mut Response<Incoming>,
    deadline: Option<Instant>,
    held: &mut Held,
) -> Result<bool, ProxyError> {
    let route = call.target.route;
    match &route.provider {
        _ if response.status() == StatusCode::UNAUTHORIZED => Ok(true),
        Some(provider) if !provider.dialect.expired_when.is_empty() => {
            expired::judge(provider, &call.head.method, response, (&route.timeouts, deadline), held).await
        }
        _ => Ok(false),
    }
}

/// The body to repeat the call with, where it had none or all of it was recorded.
fn again(upload: Option<&Rc<Upload>>) -> Option<OutBody> {
    match upload {
        // One of the route's own (`send`) is made with the request.
        None => Some(OutBody::Empty),
        Some(upload) => upload.replay(),
    }
}

/// The upstream's request: rewritten target, own headers, and the credential last, over what is really sent.
fn build(
    call: &Call<'_>,
    (token, own): (Option<&Token>, Option<&Own>),
    origin: &Origin,
    body: OutBody,
) -> Result<Request<OutBody>, ProxyError> {
    let with_own;
    let target = match own {
        None => call.target,
        Some(own) => {
            with_own = call.target.with(own);
            &with_own
        }
    };
    let route = target.route;
    let attach_query = match (route.act_as.carries_token(), route.attach.place()) {
        (true, Place::Query(name)) => Some(name),
        _ => None,
    };
    let mut text = String::with_capacity(128);
    let client_query = match route.signs_form() {
        true => target.query.map(oauth1::without_protocol),
        false => target.query.map(Cow::Borrowed),
    };
    route.rewrite.apply(&target.captures, client_query.as_deref(), attach_query, &mut text);
    let path =
        PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| ProxyError::BadPath("it does not fit in the upstream's URL"))?;
    let mut request = Request::new(body);
    *request.method_mut() = send::method(&call.head.method, route.special.as_deref());
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = call.headers(target, origin)?;
    if let Some(special) = &route.special {
        send::edit(&mut request, special, &target.captures).map_err(send::bad_path)?;
    }
    if let Some(token) = token {
        let (mut head, body) = request.into_parts();
        // What is signed is what the body's own bytes are, whoever else may have read its kind otherwise before.
        let form = (route.attach.needs() == Needs::Form && oauth1::is_form(&head.headers)).then(|| body.as_whole()).flatten();
        let around = || {
            let private = origin.tls || origin.is_loopback();
            Around { now: call.clock.now(), tls: origin.tls, private, server: origin.id.0, form }
        };
        let attached = route.attach.attach(&token.credential, &token.prepared, &mut head, around);
        attached.map_err(|failed| ProxyError::Internal(failed.to_string()))?;
        request = Request::from_parts(head, body);
    }
    Ok(request)
}

/// How an exchange failed.
pub(super) enum Failed {
    Send(SendFault),
    /// No answer within `first_byte`, or not before the call's deadline.
    Silent,
    /// The upstream's circuit is open, for so long still.
    Open(Duration),
}

impl Failed {
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Failed::Send(SendFault::Stale))
    }

    /// Whether it says something of the upstream as a whole: not a slow answer, which may be that path's or that route's short `timeout`, not a
    /// connection that had idled.
    fn is_the_upstreams(&self, timeouts: &Timeouts) -> bool {
        match self {
            Failed::Send(SendFault::Connect(error)) => match error.fault {
                ConnectFault::OutOfReach | ConnectFault::Local => false,
                // A route with less patience than others says nothing of the upstream.
                ConnectFault::Timeout => timeouts.connect.is_none_or(|connect| Some(connect) >= Timeouts::default().connect),
                ConnectFault::Dns | ConnectFault::Tcp | ConnectFault::Tls => true,
            },
            Failed::Send(SendFault::Broken(error)) => !error.is_user(),
            Failed::Send(SendFault::Stale | SendFault::Refused | SendFault::Busy) | Failed::Silent | Failed::Open(_) => false,
        }
    }

    pub(super) fn into_error(self, origin: &Origin, upload: Option<&Upload>, body_max: Option<u64>) -> ProxyError {
        if let (Some(true), Some(max)) = (upload.map(Upload::too_large), body_max) {
            return ProxyError::BodyTooLarge { max };
        }
        match self {
            Failed::Send(SendFault::Broken(_)) if upload.is_some_and(Upload::failed) => {
                ProxyError::BadRequest("the request body broke off")
            }
            Failed::Send(SendFault::Stale | SendFault::Refused) => {
                ProxyError::UpstreamBadResponse("the upstream closed the connection before it answered".to_owned())
            }
            Failed::Silent => ProxyError::UpstreamTimeout,
            Failed::Open(wait) => ProxyError::CircuitOpen { upstream: origin.authority.as_str().to_owned(), wait },
            Failed::Send(SendFault::Busy) => ProxyError::Overloaded(
                "The upstream's connections are all in use, and no place in line came free in time (`upstreams.max_connections`, `max_waiting`, `wait`)",
            ),
            Failed::Send(SendFault::Connect(error)) if error.fault == ConnectFault::Timeout => ProxyError::UpstreamTimeout,
            Failed::Send(SendFault::Connect(error)) if error.fault == ConnectFault::OutOfReach => {
                ProxyError::UpstreamUnfit { why: "it is at, or redirects to, an address that is not public", detail: error.detail }
            }
            Failed::Send(SendFault::Connect(error)) => ProxyError::UpstreamUnreachable(error.detail),
            Failed::Send(SendFault::Broken(error)) if error.is_user() => ProxyError::BadRequest("the request body broke off"),
            Failed::Send(SendFault::Broken(error)) => ProxyError::UpstreamBadResponse(error.to_string()),
        }
    }
}

/// Sends and waits for the answer's head, where the upstream's circuit lets the call through; the body comes back where none of it was sent.
pub(super) async fn exchange(
    pool: &Rc<Pool<OutBody>>,
    origin: &Origin,
    timeouts: &Timeouts,
    deadline: Option<Instant>,
    request: Request<OutBody>,
    upload: Option<&Upload>,
) -> Result<(Response<Incoming>, Lease<OutBody>), (Failed, Option<OutBody>)> {
    let Some(bounds) = pool.bounds().circuit else { return send_within(pool, origin, timeouts, deadline, request, upload).await };
    let pass = match origin.circuit.enter(bounds) {
        Ok(pass) => pass,
        Err(wait) => return Err((Failed::Open(wait), Some(request.into_body()))),
    };
    let outcome = send_within(pool, origin, timeouts, deadline, request, upload).await;
    match &outcome {
        Ok(_) => {
            if pass.succeeded() {
                tracing::info!(upstream = %origin.authority, "the upstream answers again: its circuit is closed");
            }
        }
        // Over HTTP/2 a body that its client breaks off shows as a stream that broke.
        Err((failed, _)) if failed.is_the_upstreams(timeouts) && !upload.is_some_and(Upload::failed) => match pass.failed() {
            Some(opened) if opened.is_first => {
                tracing::warn!(upstream = %origin.authority, open = ?opened.lasts, "the upstream is out of reach: its circuit is open, calls to it are refused at once")
            }
            Some(opened) => tracing::debug!(upstream = %origin.authority, open = ?opened.lasts, "the upstream is still out of reach"),
            None => {}
        },
        Err(_) => drop(pass),
    }
    outcome
}

/// `first_byte` long, counted from the connect or the last part of the upload.
async fn send_within(
    pool: &Rc<Pool<OutBody>>,
    origin: &Origin,
    timeouts: &Timeouts,
    deadline: Option<Instant>,
    request: Request<OutBody>,
    upload: Option<&Upload>,
) -> Result<(Response<Incoming>, Lease<OutBody>), (Failed, Option<OutBody>)> {
    let stage = Stage::default();
    let sending = pool.send(origin, timeouts.connect, &stage, request);
    tokio::pin!(sending);
    let mut since = Instant::now();
    loop {
        let ends = [timeouts.first_byte.map(|first_byte| since + first_byte), deadline].into_iter().flatten().min();
        let sent = match ends {
            None => Ok(sending.as_mut().await),
            Some(ends) => tokio::time::timeout_at(ends, sending.as_mut()).await,
        };
        match sent {
            Ok(sent) => {
                return sent.map_err(|Unsent { fault, body }| (Failed::Send(fault), body));
            }
            Err(_) => {
                let now = Instant::now();
                // Connecting has a limit of its own.
                let waiting = stage.connecting().then_some(now);
                let progress = [upload.map(Upload::progress), stage.connected(), waiting].into_iter().flatten().max().unwrap_or(since);
                if progress <= since || deadline.is_some_and(|deadline| deadline <= now) {
                    return Err((Failed::Silent, None));
                }
                since = progress;
            }
        }
    }
}

/// Passes the upstream's 101 on and opens the tunnel behind it.
fn switch(
    call: &Call<'_>,
    wish: Wish,
    tunnels: &Rc<Tunnels>,
    (response, lease): (Response<Incoming>, Lease<OutBody>),
    deadline: Option<Instant>,
) -> Response<ProxyBody> {
    let mut answer = Response::new(ProxyBody::Own(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let mut headers = response.headers().clone();
    headers::answer(&mut headers, call.view, call.cx, call.target.route);
    wish.say(&mut headers);
    *answer.headers_mut() = headers;
    tunnels.begin(wish, response, call.cx.take_account(), deadline, (lease, call.cx.in_flight.take()));
    answer
}

pub(super) fn answer(
    call: &Call<'_>,
    Answered { response, held, lease }: Answered,
    upload: Option<Rc<Upload>>,
    deadline: Option<Instant>,
) -> Response<ProxyBody> {
    let route = call.target.route;
    let (mut head, incoming) = response.into_parts();
    clean(call, &mut head);
    expect::close_if_unsure(upload.as_deref(), &mut head.headers);
    let told = (head.status.as_u16(), call.cx.take_account(), call.cx.in_flight.take());
    let relay = Relay::new(incoming, held, lease, upload, (route.timeouts.idle, deadline), told);
    Response::from_parts(head, ProxyBody::Relay(relay))
}

/// Makes the head of the upstream's answer the client's.
pub(super) fn clean(call: &Call<'_>, head: &mut http::response::Parts) {
    head.version = http::Version::HTTP_11;
    // Hyper's own marks of the upstream connection (the reason phrase among them) are not the client connection's.
    let reason = head.extensions.remove::<hyper::ext::ReasonPhrase>();
    head.extensions.clear();
    if let Some(reason) = reason {
        head.extensions.insert(reason);
    }
    location::rewrite(call, head);
    headers::answer(&mut head.headers, call.view, call.cx, call.target.route);
}
