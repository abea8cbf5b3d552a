//! `listen.origins`: proxy listeners that are one upstream's whole origin, for SDKs that take a host and port but drop a path prefix.
//!
//! The sockets belong to the start. The route of each may change while it listens, as any other's; [`live`] puts the two together.

use super::absolute;
use super::error::At;
use super::fields::{Fields, Problems, Shape};
use super::listen;
use super::listen_tls::For;
use super::load;
use super::node::{Node, Value, shown};
use super::routes::{self, Known, Taking};
use super::snapshot::{Bind, Listener, OriginListener, Route, RouteOrigin, ServerTls};
use super::sources::Sources;
use crate::provider::Registration;
use crate::route::{Pattern, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

const ORIGIN: Shape = Shape { name: "OriginListener", said: "an origin listener" };

/// What each of them takes: everything.
pub(super) const TAKES: &str = "/{*rest}";

/// One entry; without its route where that has faults.
pub(super) struct Origin {
    pub(super) listener: Listener,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) at: At,
}

pub(super) fn read(nodes: &[Node], known: &Known<'_>, sources: &Sources<'_>, problems: &Problems) -> Vec<Origin> {
    let mut all: Vec<Origin> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for node in nodes {
        let Some(fields) = Fields::open(node, ORIGIN, problems) else { continue };
        let before = problems.count();
        let (listener, tls) = listen::with_binds(&fields, sources, For::Proxy);
        let name = name(node).unwrap_or_default();
        if names.contains(&name) || known.route_names.contains(&name) {
            fields.say(fields.at, format!("two routes are called `{}`", shown(name)), Some("give this one another `name`".into()));
        }
        names.push(name);
        let route = routes::read_route(&fields, known, &Taking { captures: Some(&["rest"]), name, matches: TAKES, whole_origin: true });
        let at = fields.at.clone();
        let _known = fields.get("name");
        fields.finish();
        let route = route.filter(|_| problems.count() == before).map(Arc::new);
        all.extend(listener.map(|listener| Origin { listener, tls, route, at }));
    }
    all
}

/// The names that `callers: [{routes: […]}]` may hold besides those of routes.
pub(super) fn names(nodes: &[Node]) -> impl Iterator<Item = &str> {
    nodes.iter().filter_map(name)
}

/// `name`, or the first address where there is none.
fn name(node: &Node) -> Option<&str> {
    let Value::Map(entries) = &node.value else { return None };
    let (_, found) = ["name", "bind"].iter().find_map(|key| entries.iter().find(|(known, _)| known.text == **key))?;
    let first = match &found.value {
        Value::List(nodes) => nodes.first()?,
        _ => found,
    };
    match &first.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

/// Tells addresses that two listeners want.
pub(super) fn refuse_shared(origins: &[Origin], others: &[(&str, &Listener)], problems: &Problems) {
    for (index, origin) in origins.iter().enumerate() {
        let before = origins[..index].iter().map(|other| ("another of `origins`", &other.listener));
        for (what, other) in others.iter().copied().chain(before) {
            let is_free = |bind: &Bind| matches!(bind, Bind::Tcp(address) if address.port() == 0);
            if let Some(shared) = origin.listener.binds.iter().find(|bind| !is_free(bind) && other.binds.contains(bind)) {
                problems.say(&origin.at, format!("{shared} is bound by {what} too"), None);
            }
        }
    }
}

/// The listeners that run, each with the route that the config has for it by now. One whose entry is gone or bound elsewhere keeps the route it
/// had, with its provider's registration as it is now, until the restart.
pub(super) fn live(
    running: &[Listener],
    read: &[Origin],
    before: &[OriginListener],
    providers: &BTreeMap<Arc<str>, Arc<Registration>>,
    allowed_origins: &[Box<str>],
) -> Vec<OriginListener> {
    let mut left: Vec<&Origin> = read.iter().collect();
    let one = |(number, listener): (usize, &Listener)| {
        let found = left.iter().position(|origin| origin.listener.binds == listener.binds);
        let route = match found {
            Some(at) => left.remove(at).route.clone(),
            None => before.get(number).and_then(|before| kept(before.route.as_ref()?, providers)),
        };
        let pattern = Pattern::parse(TAKES).ok();
        let upstreams = absolute::index(pattern.iter().zip(&route));
        let table = route.clone().and_then(|route| Table::build(vec![(pattern?, route)]).ok()).unwrap_or_default();
        OriginListener { table, upstreams, route, guard: load::guard(&listener.hosts, &[], allowed_origins.to_vec()) }
    };
    running.iter().enumerate().map(one).collect()
}

/// The certificates of those that run, each as the config has it by now, or else as it was.
pub(super) fn live_tls(running: &[Listener], read: &[Origin], before: &[Option<Arc<ServerTls>>]) -> Vec<Option<Arc<ServerTls>>> {
    let one = |(number, listener): (usize, &Listener)| {
        let found = read.iter().find(|origin| origin.listener.binds == listener.binds).and_then(|origin| origin.tls.clone());
        found.or_else(|| before.get(number).cloned().flatten()).filter(|_| listener.tls)
    };
    running.iter().enumerate().map(one).collect()
}

/// A route of the config before, if its provider still lets it be.
fn kept(route: &Arc<Route>, providers: &BTreeMap<Arc<str>, Arc<Registration>>) -> Option<Arc<Route>> {
    let Some(registration) = &route.provider else { return Some(Arc::clone(route)) };
    let now = providers.get(&registration.id)?;
    let fits = match &route.origin {
        RouteOrigin::Fixed(origin) => !route.act_as.carries_token() || now.token_host_allowed(&origin.host, origin.port),
        RouteOrigin::PerConnection(template) => template.is_possible(now),
    };
    let has_own = route.has_own || (route.act_as.carries_token() && !now.dialect.api.is_empty());
    let origin = route.origin.reached_by(now, route.act_as);
    fits.then(|| Arc::new(Route { provider: Some(Arc::clone(now)), has_own, origin, ..Route::clone(route) }))
}
