//! Which routes take URLs of their upstream's own (contract §3, "Absolute form"): the index is made once, at load.

use super::snapshot::{Route, RouteOrigin};
use crate::route::{Claim, Pattern, Upstreams};
use std::sync::Arc;

/// The index of these routes.
pub(super) fn index<'r>(routes: impl Iterator<Item = (&'r Pattern, &'r Arc<Route>)>) -> Upstreams<Arc<Route>> {
    routes.filter_map(|(pattern, route)| claim(pattern, route)).collect()
}

/// What the route stands for, if it stands for everything under its upstream and a request's URL says all that its texts need. One with
/// `send` makes another request of each; one with further captures has nothing to fill them with; a host of the connection's own is known
/// only after the route.
fn claim(pattern: &Pattern, route: &Arc<Route>) -> Option<Claim<Arc<Route>>> {
    let RouteOrigin::Fixed(origin) = &route.origin else { return None };
    let makes_its_own = route.special.as_ref().is_some_and(|special| special.send.is_some());
    let (prefix, rest) = route.rewrite.whole_prefix()?;
    if makes_its_own || !pattern.ends_in_rest() || !pattern.captures().eq([rest]) {
        return None;
    }
    Some(Claim {
        tls: origin.tls,
        host: origin.host.strip_suffix('.').unwrap_or(&origin.host).into(),
        port: origin.port,
        prefix: prefix.into(),
        rest: [rest.into()],
        methods: pattern.methods.clone(),
        owner: route.provider.as_ref().map(|provider| Box::from(&*provider.id)),
        value: Arc::clone(route),
    })
}
