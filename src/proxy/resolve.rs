//! From a request's method, host and exact path bytes to its route. Used by calls and by `explain` alike.

use super::Target;
use super::error::ProxyError;
use crate::config::Snapshot;
use crate::route::{Found, path};
use http::{Method, Uri};

/// The most specific route that takes the request (contract §3). The query and any fragment have no part in it.
/// Scheme and authority of an absolute-form target have none either: [`super::absolute`] judges them first.
/// `origin` says which of `listen.origins` it came in by: that one's route takes all of its calls.
pub(super) fn resolve<'c>(
    snapshot: &'c Snapshot,
    origin: Option<usize>,
    method: &Method,
    host: Option<&str>,
    uri: &'c Uri,
) -> Result<Target<'c>, ProxyError> {
    path::check(uri.path()).map_err(|fault| ProxyError::BadPath(fault.reason()))?;
    let table = match origin {
        None => Some(&snapshot.routes),
        Some(number) => snapshot.origins.get(number).map(|origin| &origin.table),
    };
    let Some(table) = table else { return Err(ProxyError::NoRoute) };
    match table.find(method, host, uri.path()) {
        Found::Route { value, captures } => Ok(Target { route: value, captures, query: uri.query(), absolute: false, own: None }),
        Found::MethodNotAllowed { allow } => Err(ProxyError::MethodNotAllowed { allow }),
        Found::None => Err(ProxyError::NoRoute),
    }
}
