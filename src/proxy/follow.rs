//! `follow: no_token`: fetches what a redirect names, as a stranger would (contract §3, THREATS rows 9 and 26).
//!
//! A hop carries no token, no identity and no header of the route's: what the client accepts, and which part of it, is all that goes along.
//! The upstream chooses the target, so hops go out by https to public addresses only, on connections of their own. Deliberately absent: any
//! redirect of a call that is no GET or HEAD.

use super::body::OutBody;
use super::error::ProxyError;
use super::expired::Held;
use super::forward::{Call, exchange};
use crate::config::RouteOrigin;
use crate::upstream::{Bounds, Connector, Lease, Origin, OriginId, Pool, Reach};
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HOST, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LOCATION, RANGE, USER_AGENT, VIA,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use url::{Position, Url};

/// Redirects that are followed one after the other.
const HOPS_MAX: usize = 3;
/// A redirect's own body that is worth reading, to keep its connection.
const DISCARD_BYTES_MAX: u64 = 64 << 10;
const DISCARD_FOR: Duration = Duration::from_secs(5);
/// Targets whose numbers a worker remembers. Upstreams name them, so they are bounded.
const TARGETS_MAX: usize = 1024;

/// What of the client's request goes along.
const CARRIED: [HeaderName; 10] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    USER_AGENT,
];

/// One worker's connections to where redirects lead.
#[derive(Debug)]
pub(super) struct Hops {
    public: Rc<Pool<OutBody>>,
    /// For routes whose own upstream is on this machine, as in development.
    local: Rc<Pool<OutBody>>,
    /// The same two for upstreams whose host is a connection's own: their numbers are the config's, and those of redirects are not.
    own: [Rc<Pool<OutBody>>; 2],
    targets: RefCell<HashMap<Box<str>, Arc<Origin>>>,
    next: Cell<u32>,
}

/// An answer whose body is still to come, but for what was read of it.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) held: Held,
    pub(super) lease: Lease<OutBody>,
}

/// Where the route's own request went.
pub(super) struct Asked<'a> {
    pub(super) origin: &'a Origin,
    pub(super) path: String,
}

impl Hops {
    pub(super) fn new(connector: &Connector) -> Self {
        let pool = |reach| Pool::new(connector.within(reach));
        let own = [pool(Reach::Public), pool(Reach::PublicOrLoopback)];
        Hops { public: pool(Reach::Public), local: pool(Reach::PublicOrLoopback), own, targets: RefCell::default(), next: Cell::new(0) }
    }

    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.public.set_bounds(bounds);
        self.local.set_bounds(bounds);
        self.own.iter().for_each(|pool| pool.set_bounds(bounds));
    }

    pub(super) fn sweep(&self) {
        self.public.sweep();
        self.local.sweep();
        self.own.iter().for_each(|pool| pool.sweep());
    }

    /// The connections to an upstream that a connection's values chose: public addresses alone, whatever its name resolves to, but for one that
    /// is this machine by name (THREATS row 26).
    pub(super) fn own(&self, origin: &Origin) -> &Rc<Pool<OutBody>> {
        &self.own[usize::from(origin.is_loopback())]
    }

    /// The origin of a target, under a number of this worker's own.
    fn target(&self, url: &Url) -> Result<Arc<Origin>, ProxyError> {
        let key = &url[..Position::BeforePath];
        let mut targets = self.targets.borrow_mut();
        if let Some(known) = targets.get(key) {
            return Ok(Arc::clone(known));
        }
        let id = OriginId(self.next.get());
        let tls = url.scheme() == "https";
        let (host, port) = url.host_str().zip(url.port_or_known_default()).unwrap_or_default();
        let origin = Origin::numbered(id, tls, host, port).map(Arc::new);
        let origin = origin.map_err(|bad| unfit("it redirects to what is no https URL", bad.to_string()))?;
        // Never given twice, so that what is forgotten leaves its connections to idle out.
        self.next.set(id.0.wrapping_add(1));
        if targets.len() >= TARGETS_MAX {
            targets.clear();
        }
        targets.insert(key.into(), Arc::clone(&origin));
        Ok(origin)
    }
}

/// Follows an answer that is a redirect to its end; any other is answered as it is.
pub(super) async fn follow(
    hops: &Hops,
    call: &Call<'_>,
    asked: &Asked<'_>,
    answered: Answered,
    deadline: Option<Instant>,
) -> Result<Answered, ProxyError> {
    let safe = |method: &Method| matches!(*method, Method::GET | Method::HEAD);
    // 307 and 308 keep the method and the body, and those of the route's own are for its upstream alone (RFC 9110 §15.4.8).
    let keeps_method = matches!(answered.response.status().as_u16(), 307 | 308);
    if !safe(&call.head.method) || (keeps_method && !safe(&super::send::method(&call.head.method, call.target.route.special.as_deref()))) {
        return Ok(answered);
    }
    let Some(location) = location(&answered.response) else { return Ok(answered) };
    discard(answered);
    chase(hops, call, asked, location, deadline).await
}

/// Fetches what `location` names, and what that redirects to.
pub(super) async fn chase(
    hops: &Hops,
    call: &Call<'_>,
    asked: &Asked<'_>,
    mut named: String,
    deadline: Option<Instant>,
) -> Result<Answered, ProxyError> {
    let route = call.target.route;
    // Only a host that the operator wrote says that the upstream is on this machine.
    let local = matches!(&route.origin, RouteOrigin::Fixed(origin) if origin.is_loopback());
    let pool = if local { &hops.local } else { &hops.public };
    let mut at = base(asked)?;
    for _ in 0..HOPS_MAX {
        at = next(&at, &named, local)?;
        let answered = fetch(pool, &*hops.target(&at)?, call, &at, deadline).await?;
        match location(&answered.response) {
            None => return Ok(answered),
            Some(location) => named = location,
        }
        discard(answered);
    }
    Err(unfit("it redirects more than three times", String::new()))
}

/// What a relative target is relative to.
fn base(asked: &Asked<'_>) -> Result<Url, ProxyError> {
    let url = format!("{}://{}{}", asked.origin.scheme(), asked.origin.authority, asked.path);
    Url::parse(&url).map_err(|error| ProxyError::Internal(error.to_string()))
}

/// What a redirect names (RFC 9110 §15.4).
fn location(response: &Response<Incoming>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(String::from_utf8_lossy(response.headers().get(LOCATION)?.as_bytes()).into_owned())
}

fn next(at: &Url, location: &str, local: bool) -> Result<Url, ProxyError> {
    let told = || at.host_str().unwrap_or_default().to_owned();
    let url = at.join(location).map_err(|_| unfit("it redirects to what is no URL", told()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unfit("it redirects to a URL with a user or password", told()));
    }
    let local = local && crate::base::loopback::is_loopback(&url);
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        _ => Err(unfit("it redirects to what is no https URL", told())),
    }
}

async fn fetch(
    pool: &Rc<Pool<OutBody>>,
    origin: &Origin,
    call: &Call<'_>,
    url: &Url,
    deadline: Option<Instant>,
) -> Result<Answered, ProxyError> {
    let mut repeated = false;
    loop {
        let request = request(call, origin, url)?;
        match exchange(pool, origin, &call.target.route.timeouts, deadline, request, None).await {
            Ok((response, _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(ProxyError::UpstreamBadResponse("it switched protocols unasked".to_owned()));
            }
            Ok((response, lease)) => return Ok(Answered { response, held: Held::new(), lease }),
            // A GET without a body, whose idle connection was closed.
            Err((failed, _)) if !repeated && failed.is_stale() => {
                repeated = true;
                pool.distrust(origin);
            }
            Err((failed, _)) => return Err(failed.into_error(origin, None, None)),
        }
    }
}

fn request(call: &Call<'_>, origin: &Origin, url: &Url) -> Result<Request<OutBody>, ProxyError> {
    let target = Bytes::copy_from_slice(url[Position::BeforePath..Position::AfterQuery].as_bytes());
    let target = PathAndQuery::from_maybe_shared(target).map_err(|error| unfit("it redirects to what is no URL", error.to_string()))?;
    let mut request = Request::new(OutBody::Empty);
    *request.method_mut() = if call.head.method == Method::HEAD { Method::HEAD } else { Method::GET };
    *request.uri_mut() = Uri::from(target);
    let headers = request.headers_mut();
    for name in &CARRIED {
        for value in call.head.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(HOST, origin.host_header.clone());
    headers.insert(VIA, HeaderValue::from_static("1.1 attache"));
    Ok(request)
}

/// Reads a short answer that nobody wants to its end, so that its connection can serve the next call; nobody waits for it.
pub(super) fn discard(Answered { response, lease, .. }: Answered) {
    let body = response.into_body();
    if body.is_end_stream() {
        return lease.give_back();
    }
    if body.size_hint().exact().is_some_and(|length| length <= DISCARD_BYTES_MAX) {
        tokio::task::spawn_local(async move {
            if let Ok(Ok(_)) = tokio::time::timeout(DISCARD_FOR, body.collect()).await {
                lease.give_back();
            }
        });
    }
}

fn unfit(why: &'static str, detail: String) -> ProxyError {
    ProxyError::UpstreamUnfit { why, detail }
}
