//! Floor 5: the path of a call, from its head to the upstream's answer. [`Proxy::handle`] is the whole of it in one function.
//!
//! A `Proxy` belongs to one worker thread: its pool, its view of the config and its ids need no lock. A call holds one config snapshot for its
//! whole life. When its token is fresh it awaits nothing before it is forwarded.

mod absolute;
mod after;
mod body;
mod context;
mod error;
mod expect;
mod expired;
pub mod explain;
mod follow;
mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod guard;
mod headers;
mod http2;
mod location;
mod nonce;
mod placeholder;
mod relay;
mod resolve;
mod retry;
mod send;
mod signed;
mod trailers;
mod tunnel;

pub use body::OutBody;
pub use error::ProxyError;
pub use guard::{Peer, Via};
pub use relay::ProxyBody;
pub use tunnel::Tunnels;

use crate::base::ids::{ConnectionKeyRef, DEFAULT_ACCOUNT};
use crate::config::{ActAs, Live, Route, Snapshot};
use crate::identity::{Caller, EndUser};
use crate::limit::Counted;
use crate::metrics::Meters;
use crate::oauth::KeySets;
use crate::provider::Registration;
use crate::token::{Keeper, KeeperError, Own, Token};
use crate::upstream::{Bounds, Connector, Pool};
use context::{Context, Ids, InFlight};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use placeholder::Placeholder;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The longest that a call waits for its token: a token call has 30 s, and a queue of them must not hold calls for minutes.
const TOKEN_WAIT: Duration = Duration::from_secs(35);

/// One worker's proxy.
#[derive(Debug)]
pub struct Proxy {
    live: Arc<Live>,
    keeper: Arc<Keeper>,
    proofs: signed::Proofs,
    pool: Rc<Pool<OutBody>>,
    hops: follow::Hops,
    tunnels: Rc<Tunnels>,
    view: RefCell<Rc<View>>,
    ids: Ids,
    in_flight: Rc<Cell<usize>>,
    meters: Rc<Meters>,
}

/// A config snapshot as one worker holds it, with what is prepared from it once. The inner `Rc` spares calls the shared count of the `Arc`.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    /// What every answer's `Vary` gains (contract §4).
    pub(crate) vary: HeaderValue,
    /// The headers that credentials go into or routes' `headers` decide on, which no trailer may name.
    pub(crate) guarded: Box<[http::HeaderName]>,
}

impl View {
    fn new(snapshot: Arc<Snapshot>) -> Rc<Self> {
        let rules = &snapshot.end_user;
        let vary = format!("{}, {}", rules.header, rules.account_header);
        // Two header names and a comma are a header value; the fallback only ever widens what a cache must tell apart.
        let vary = HeaderValue::try_from(vary).unwrap_or_else(|_| HeaderValue::from_static("*"));
        let guarded = trailers::guarded_names(&snapshot);
        Rc::new(View { snapshot, vary, guarded })
    }
}

/// A route with what was found out about its caller: all that building the upstream's request needs besides the client's own head.
pub(crate) struct Target<'c> {
    pub(crate) route: &'c Arc<Route>,
    pub(crate) captures: crate::route::Captures<'c>,
    pub(crate) query: Option<&'c str>,
    /// Whether the client spoke of it by its upstream's URL.
    pub(crate) absolute: bool,
    /// The connection's own part of the call, where the route or its provider has one; known with the token.
    pub(crate) own: Option<&'c Own>,
}

impl<'c> Target<'c> {
    fn with<'o>(&self, own: &'o Own) -> Target<'o>
    where
        'c: 'o,
    {
        Target { captures: self.captures.with(&own.extras), own: Some(own), ..*self }
    }
}

/// The connection whose token the call carries.
#[derive(Clone, Copy)]
struct Who<'c> {
    provider: &'c Arc<Registration>,
    /// The route's `timeout.total`: waiting for a token counts too.
    route_total: Option<Duration>,
    /// `None`: the app itself (`as: app`).
    end_user: Option<EndUser<'c>>,
}

impl Proxy {
    pub fn new(live: Arc<Live>, keeper: Arc<Keeper>, key_sets: KeySets, connector: Connector, meters: Meters) -> Rc<Self> {
        let view = RefCell::new(View::new(live.snapshot()));
        let hops = follow::Hops::new(&connector);
        let proofs = signed::Proofs::new(key_sets);
        let pool = Pool::new(connector);
        let (ids, meters) = (Ids::new(), Rc::new(meters));
        let proxy = Proxy { live, keeper, proofs, pool, hops, tunnels: Rc::default(), view, ids, in_flight: Rc::default(), meters };
        let bounds = proxy.view.borrow().snapshot.bounds;
        proxy.set_bounds(bounds);
        Rc::new(proxy)
    }

    /// The upgraded connections of this worker.
    pub fn tunnels(&self) -> &Rc<Tunnels> {
        &self.tunnels
    }

    fn set_bounds(&self, bounds: Bounds) {
        self.pool.set_bounds(bounds);
        self.hops.set_bounds(bounds);
    }

    /// Closes upstream connections that idled too long, and forgets whom no limit holds back.
    pub fn sweep(&self) {
        self.pool.sweep();
        self.hops.sweep();
        for limits in self.live.swap().load().all_routes().filter_map(|route| route.limits.as_ref()) {
            limits.sweep();
        }
    }

    /// Answers one call. Never fails: what goes wrong is told to the client as problem+json (contract §5) and to the log.
    pub async fn handle(self: Rc<Self>, peer: Rc<Peer>, request: Request<Incoming>) -> Response<ProxyBody> {
        let view = self.view();
        let snapshot = &view.snapshot;
        let cx = Context::open(&self.ids, &request, snapshot.log.calls, snapshot.metrics.enabled.then_some(&self.meters));
        let (mut head, incoming) = request.into_parts();
        match InFlight::begin(&self.in_flight, view.snapshot.bounds.calls_max) {
            Some(in_flight) => drop(cx.in_flight.replace(Some(in_flight))),
            None => {
                return ProxyError::Overloaded("This worker has as many calls in flight as `upstreams.max_calls` lets it have")
                    .into_response(&view, cx);
            }
        }
        if head.version == http::Version::HTTP_2
            && let Err(failed) = http2::normalise(&mut head)
        {
            return failed.into_response(&view, cx);
        }
        match self.run(&view, &peer, &cx, &head, incoming).await {
            Ok(response) => response,
            Err(failed) => {
                let mut refused = failed.into_response(&view, cx);
                // Where such a body ends is what its sender and we may see differently.
                if body::is_coded(&head.headers) {
                    refused.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
                }
                refused
            }
        }
    }

    async fn run(
        &self,
        view: &Rc<View>,
        peer: &Peer,
        cx: &Context,
        head: &http::request::Parts,
        incoming: Incoming,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let snapshot = &*view.snapshot;
        let host = guard::check(snapshot.guard_of(peer.via.origin), peer, head)?;
        let caller = snapshot.callers.identify(&head.headers, peer.behind());
        let unknown = caller.is_err();
        if unknown && !snapshot.has_placeholders && peer.via.placeholder != Some(true) {
            return Err(ProxyError::CallerRefused("caller"));
        }
        // Who shows no key yet learns nothing of the routes: a placeholder may hold it, and only the route says whether.
        let hidden = |error| if unknown { ProxyError::CallerRefused("caller") } else { error };
        let target = match head.uri.authority() {
            None => resolve::resolve(snapshot, peer.via.origin, &head.method, host, &head.uri),
            Some(authority) => absolute::resolve(snapshot, peer, head, authority),
        };
        let target = target.map_err(hidden)?;
        cx.routed(&self.meters, target.route);
        let shown = self.placeholder(snapshot, peer, target.route, head).map_err(hidden)?;
        let caller = match shown.as_ref().and_then(|shown| shown.key.as_deref()) {
            None => caller,
            key => snapshot.callers.identify_with(&head.headers, peer.behind(), key),
        };
        let caller = caller.map_err(|_| ProxyError::CallerRefused("caller"))?;
        guard::may_call(caller, target.route)?;
        let named = shown.as_ref().map(|shown| &*shown.name);
        let proved = match &snapshot.end_user.jwt {
            Some(rules) if target.route.names_end_user() => {
                Some(self.proofs.prove(rules, snapshot.end_user.tokens(&head.headers, named)?).await?)
            }
            _ => None,
        };
        let who = self.who(snapshot, target.route, &head.headers, named, proved.as_deref())?;
        if let (Some(shown), Some(_), None) = (&shown, who, &proved) {
            cx.named_by_placeholder(&shown.name);
        }
        if let Some(limits) = &target.route.limits {
            let end_user = who.and_then(|who| who.end_user);
            limits.admit(counted(end_user, caller), self.keeper.clock()).map_err(ProxyError::RateLimited)?;
        }
        let token = match who {
            Some(who) => Some(self.token(who, cx).await?),
            None => None,
        };
        if let Some(token) = &token {
            cx.carries(&token.connection_id);
        }
        send::refuse_body(target.route, &incoming)?;
        if !incoming.is_end_stream() && body::is_coded(&head.headers) {
            return Err(ProxyError::BadRequest("a body may have one transfer coding, and that is `chunked`"));
        }
        let end_user = who.and_then(|who| who.end_user);
        let call = forward::Call { view, cx, head, target: &target, end_user, clock: &**self.keeper.clock() };
        let wish = tunnel::Wish::of(target.route, head, &incoming).map(|wish| (wish, &self.tunnels));
        let (outgoing, upload) = match target.route.signs_form() && call.sends_form(token.as_deref())? {
            true => body::whole_form(incoming, view, target.route).await?,
            false => body::prepare(incoming, head, view, target.route)?,
        };
        let rejected = async |used: &Arc<Token>| match who {
            Some(who) => self.keeper.rejected(who.provider, who.key(), used).await,
            None => None,
        };
        let fresh = async || match who {
            Some(who) => self.token(who, cx).await.map(Some),
            None => Ok(None),
        };
        forward::forward((&self.pool, &self.hops), call, token, (outgoing, upload), wish, (rejected, fresh)).await
    }

    /// What stands where the client's SDK wants its token, where route, listener or config say that it is the end user's name.
    fn placeholder<'h>(
        &self,
        snapshot: &Snapshot,
        peer: &Peer,
        route: &Route,
        head: &'h http::request::Parts,
    ) -> Result<Option<Placeholder<'h>>, ProxyError> {
        if !route.placeholder.or(peer.via.placeholder).unwrap_or(snapshot.end_user.placeholder) {
            return Ok(None);
        }
        match placeholder::read(head, route, snapshot.callers.have_keys()) {
            Err(error) if route.act_as == ActAs::User => Err(error.into()),
            // Nobody is named on such a route; what cannot be read shows no key either.
            read => Ok(read.unwrap_or(None)),
        }
    }

    /// Whose token a call carries, where the route carries one.
    fn who<'c>(
        &self,
        snapshot: &'c Snapshot,
        route: &'c Route,
        headers: &'c HeaderMap,
        placeholder: Option<&'c str>,
        proved: Option<&'c str>,
    ) -> Result<Option<Who<'c>>, ProxyError> {
        if route.act_as != ActAs::User {
            // No name is read, and none may be passed on that an upstream would take for one that was.
            snapshot.end_user.refuse_twins(headers)?;
        }
        let Some(provider) = &route.provider else { return Ok(None) };
        if provider.off.is_some() {
            return Err(ProxyError::ProviderNotConfigured { provider: Arc::clone(&provider.id) });
        }
        let end_user = match route.act_as {
            ActAs::None => return Ok(None),
            ActAs::App => None,
            ActAs::User => Some(match proved {
                Some(name) => snapshot.end_user.proved(headers, name)?,
                None => snapshot.end_user.read_with(headers, placeholder)?,
            }),
        };
        Ok(Some(Who { provider, route_total: route.timeouts.total, end_user }))
    }

    /// A token that is good now: from memory without an await, else through the keeper.
    async fn token(&self, who: Who<'_>, cx: &Context) -> Result<Arc<Token>, ProxyError> {
        if let Some(token) = self.keeper.fresh(who.provider, who.key()) {
            return Ok(token);
        }
        cx.waited_for_token();
        let wait = who.route_total.map_or(TOKEN_WAIT, |total| total.min(TOKEN_WAIT));
        // Losing the wait is safe: the refresh is a task of its own and goes on.
        let token = tokio::time::timeout(wait, self.keeper.credential(who.provider, who.key())).await;
        let token = token.unwrap_or(Err(KeeperError::RefreshFailed { retry_after: Some(Duration::from_secs(5)) }));
        token.map_err(|failed| ProxyError::from_keeper(failed, &who.provider.id, who.end_user))
    }

    /// The config as it is now. One comparison of pointers where it has not changed.
    fn view(&self) -> Rc<View> {
        let current = self.live.swap().load();
        let mut held = self.view.borrow_mut();
        if !Arc::ptr_eq(&current, &held.snapshot) {
            *held = View::new(Arc::clone(&current));
            self.set_bounds(current.bounds);
        }
        Rc::clone(&held)
    }
}

/// Whether a request's `Host` and `Origin` may call at all; the admin listener keeps the same rules.
///
/// # Errors
/// As the proxy's own: `caller-refused` or `bad-request`.
pub fn check_guard(guard: &crate::config::Guard, peer: &Peer, head: &http::request::Parts) -> Result<(), ProxyError> {
    // The proxy leaves these to its routes; here there is nothing that takes them.
    if head.uri.authority().is_some() {
        return Err(ProxyError::CallerRefused("host"));
    }
    guard::check(guard, peer, head).map(drop)
}

/// Whose call it is to `rate_limit`.
fn counted<'c>(end_user: Option<EndUser<'c>>, caller: Option<&'c Caller>) -> Counted<'c> {
    match (end_user, caller) {
        (Some(end_user), _) => Counted::EndUser(end_user.name),
        (None, Some(caller)) => Counted::Caller(&caller.name),
        (None, None) => Counted::Anyone,
    }
}

impl<'c> Who<'c> {
    fn key(&self) -> ConnectionKeyRef<'c> {
        let provider = &*self.provider.id;
        match self.end_user {
            Some(EndUser { name, account }) => ConnectionKeyRef { provider, end_user: name, account: account.unwrap_or(DEFAULT_ACCOUNT) },
            None => ConnectionKeyRef::app(provider),
        }
    }
}
