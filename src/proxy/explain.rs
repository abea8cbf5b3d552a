//! What would happen to a call, without making it: for `attache explain` and the admin API.

use super::error::ProxyError;
use super::guard::{self, Peer};
use super::{absolute, resolve};
use crate::attach::{Place, Scheme};
use crate::config::{Bind, Listener, RouteOrigin, Snapshot};
use crate::route::Site;
use http::{Method, Uri};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What a call would become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    pub route: Option<String>,
    pub matches: Option<String>,
    pub provider: Option<String>,
    /// Whose token it carries, in the words of `as:`.
    pub act_as: Option<&'static str>,
    pub upstream_url: Option<String>,
    /// How the token is attached, in the words of `attach:`; `none` for `as: none`.
    pub attach: Option<String>,
    /// The error's name and detail, when the call would be refused.
    pub refused: Option<(String, String)>,
}

/// Explains `METHOD URL`; the URL may be a path, or whole: of the proxy listener (`http://localhost:7070/photos`), of one of `listen.origins`, or
/// of an upstream, as a client says it that has Attaché for its proxy.
///
/// # Errors
/// A text when the URL is none.
pub fn explain(snapshot: &Snapshot, method: &Method, url: &str) -> Result<Explained, String> {
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no URL and no path"))?;
    let host = uri.host().map(str::to_owned);
    let target: Uri = uri.path_and_query().map_or("/", |target| target.as_str()).parse().map_err(|_| format!("`{url}` has no path"))?;
    let refused = |error: &ProxyError| Some((error.row().0.to_owned(), error.detail(snapshot)));
    let mut explained =
        Explained { route: None, matches: None, provider: None, act_as: None, upstream_url: None, attach: None, refused: None };
    let origin = origin_of(snapshot, &uri);
    let named = match absolute::site(&uri) {
        Ok(site) => site.filter(|site| origin.is_none() && (snapshot.upstreams.has(site) || !is_ours(snapshot, site))),
        Err(error) => {
            explained.refused = refused(&error);
            return Ok(explained);
        }
    };
    let found = match &named {
        Some(site) => absolute::find(&snapshot.upstreams, method, site, &target, None),
        None => resolve::resolve(snapshot, origin, method, host.as_deref(), &target),
    };
    match found {
        Err(error) => explained.refused = refused(&error),
        Ok(found) => {
            let route = found.route;
            let carries = route.act_as.carries_token();
            let attach_query = match route.attach.place() {
                Place::Query(name) if carries => Some(name),
                _ => None,
            };
            let mut path = String::new();
            route.rewrite.apply(&found.captures, found.query, attach_query, &mut path);
            explained.route = Some(route.name.to_string());
            explained.matches = Some(route.matches.to_string());
            explained.provider = route.provider.as_ref().map(|provider| provider.id.to_string());
            explained.act_as = Some(route.act_as.word());
            // Of a host that is the connection's own its places are shown.
            let origin = match &route.origin {
                RouteOrigin::Fixed(origin) => format!("{}://{}", origin.scheme(), origin.authority),
                RouteOrigin::PerConnection(template) => format!("{}://{}", if template.tls { "https" } else { "http" }, template.written),
            };
            explained.upstream_url = Some(snapshot.masked(&format!("{origin}{path}")));
            explained.attach = Some(if carries { scheme_words(&route.attach) } else { "none".to_owned() });
            if let Some(provider) = route.provider.as_ref().filter(|provider| provider.off.is_some()) {
                explained.refused = refused(&ProxyError::ProviderNotConfigured { provider: provider.id.clone() });
            }
        }
    }
    Ok(explained)
}

/// Whether the proxy listener may be what the URL calls.
fn is_ours(snapshot: &Snapshot, site: &Site<'_>) -> bool {
    let ip: Option<IpAddr> = site.host.trim_matches(['[', ']']).parse().ok();
    ip.is_some() || guard::host_allowed(&snapshot.guard, &Peer::default(), site.host)
}

/// Which of `listen.origins` the URL calls, if it is one.
fn origin_of(snapshot: &Snapshot, uri: &Uri) -> Option<usize> {
    let (host, port) = (uri.host()?, uri.port_u16().unwrap_or(80));
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let local = host.eq_ignore_ascii_case("localhost");
    let calls = |listener: &Listener| {
        listener.binds.iter().any(|bind| match bind {
            Bind::Tcp(address) if address.port() == port => {
                let named = listener.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
                named || address.ip().is_unspecified() || ip == Some(address.ip()) || (local && address.ip().is_loopback())
            }
            Bind::Tcp(_) | Bind::Unix(_) => false,
        })
    };
    snapshot.startup.origins.iter().position(calls)
}

impl Explained {
    /// The admin API's form (contract §6).
    pub fn to_json(&self) -> Value {
        let refused = self.refused.as_ref().map(|(name, detail)| json!({"type": format!("urn:attache:{name}"), "detail": detail}));
        json!({"route": self.route, "match": self.matches, "provider": self.provider, "as": self.act_as, "upstream_url": self.upstream_url, "attach": self.attach, "refused": refused})
    }
}

/// The scheme as `routes.yaml` says it.
pub fn scheme_words(scheme: &Scheme) -> String {
    match scheme {
        Scheme::Bearer => "bearer".to_owned(),
        Scheme::Word(word) => format!("{{scheme: {word}}}"),
        Scheme::Header(name) => format!("{{header: {name}}}"),
        Scheme::Query(name) => format!("{{query: {name}}}"),
        Scheme::Basic => "basic".to_owned(),
        Scheme::Dpop => "dpop".to_owned(),
        Scheme::OAuth1(_) => "oauth1".to_owned(),
    }
}
