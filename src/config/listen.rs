//! `listen:` and `public_url`: where each listener is bound and which hosts and origins it answers to.

use super::error::At;
use super::fields::{Fields, Problems, Shape, list};
use super::listen_tls::{self, For};
use super::node::{Node, Value};
use super::scalar;
use super::snapshot::{Bind, Listener, ListenerTls, ServerTls};
use super::sources::Sources;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use url::Url;

const LISTEN: Shape = Shape { name: "Listen", said: "`listen`" };
const LISTENER: Shape = Shape { name: "ListenerKeys", said: "a listener" };

pub(super) struct Listen<'n> {
    pub(super) proxy: Listener,
    pub(super) public: Listener,
    pub(super) admin: Listener,
    pub(super) health: Option<Listener>,
    pub(super) allowed_origins: Vec<Box<str>>,
    pub(super) allow_anonymous: bool,
    /// Where `listen.proxy` stands.
    pub(super) proxy_at: At,
    /// The entries of `origins`, which are read when the providers are known.
    pub(super) origins: &'n [Node],
    pub(super) tls: ListenerTls,
}

pub(super) fn read<'n>(root: &Fields<'n>, sources: &Sources<'_>) -> Listen<'n> {
    let problems = root.problems;
    let defaults = Listen {
        proxy: Listener { binds: both_loopbacks(7070), ..Listener::default() },
        public: Listener { binds: vec![Bind::Tcp((Ipv4Addr::LOCALHOST, 7071).into())], ..Listener::default() },
        admin: Listener { binds: vec![Bind::Tcp((Ipv4Addr::LOCALHOST, 7072).into())], ..Listener::default() },
        health: None,
        allowed_origins: Vec::new(),
        allow_anonymous: false,
        proxy_at: root.at.clone(),
        origins: &[],
        tls: ListenerTls::default(),
    };
    let Some(fields) = root.section("listen", LISTEN) else { return defaults };
    let mut tls = ListenerTls::default();
    let one = |key, default, tls: &mut Option<Arc<ServerTls>>| match fields.get(key) {
        Some(node) => listener(node, sources, problems, key, tls).unwrap_or(default),
        None => default,
    };
    let proxy = one("proxy", defaults.proxy, &mut tls.proxy);
    let public = one("public", defaults.public, &mut tls.public);
    let admin = one("admin", defaults.admin, &mut tls.admin);
    let health = fields.get("health").filter(|node| !is_off(node));
    let health = health.and_then(|node| listener(node, sources, problems, "health", &mut tls.health));
    let proxy_at = fields.get("proxy").map_or_else(|| fields.at.clone(), |node| node.at.clone());
    if let Some(node) = fields.peek("admin")
        && admin.binds.iter().any(|bind| !is_local(bind))
        && !admin.tls
    {
        let hint = "write `{bind: …, tls: {cert: …, key: …}}`, or bind it to loopback or a unix socket and reach it through an ssh tunnel";
        problems.say(
            &node.at,
            "an admin listener off loopback and unix sockets needs `tls`: its tokens would travel in clear",
            Some(hint.into()),
        );
    }
    let off = Listener::default();
    refuse_shared(&fields, &[("proxy", &proxy), ("public", &public), ("admin", &admin), ("health", health.as_ref().unwrap_or(&off))]);
    let allowed_origins = allowed_origins(&fields);
    let allow_anonymous = fields.flag("allow_anonymous").unwrap_or(false);
    let origins = fields.list("origins").unwrap_or_default();
    fields.finish();
    Listen { proxy, public, admin, health, allowed_origins, allow_anonymous, proxy_at, origins, tls }
}

/// Tells two listeners on one address at the one that the file names, the later where it names both.
fn refuse_shared(fields: &Fields<'_>, listeners: &[(&str, &Listener)]) {
    for (index, (second, listener)) in listeners.iter().enumerate() {
        for (first, other) in &listeners[..index] {
            let is_free = |bind: &Bind| matches!(bind, Bind::Tcp(address) if address.port() == 0);
            let Some(shared) = listener.binds.iter().find(|bind| !is_free(bind) && other.binds.contains(bind)) else { continue };
            let at = fields.peek(second).or_else(|| fields.peek(first)).map_or(fields.at, |node| &node.at);
            fields.say(at, format!("`{first}` and `{second}` are both bound to {shared}"), None);
        }
    }
}

/// `off`, and `false`, which is what YAML 1.1 readers make of it.
fn is_off(node: &Node) -> bool {
    scalar::is_word(node, "off") || scalar::is_word(node, "false")
}

/// Whether only this machine reaches it.
pub(super) fn is_local(bind: &Bind) -> bool {
    match bind {
        // An IPv4 address in IPv6's clothes is the IPv4 one.
        Bind::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Bind::Unix(_) => true,
    }
}

/// Whether strangers may reach a proxy listener and nothing asks who they are (contract §2).
pub(super) fn is_exposed(proxy: &Listener, allow_anonymous: bool, no_callers: bool) -> bool {
    no_callers && !allow_anonymous && proxy.binds.iter().any(|bind| !is_local(bind))
}

fn listener(node: &Node, sources: &Sources<'_>, problems: &Problems, name: &str, tls: &mut Option<Arc<ServerTls>>) -> Option<Listener> {
    if matches!(node.value, Value::Scalar(_)) {
        return Some(Listener { binds: binds(node, sources, problems)?, ..Listener::default() });
    }
    let fields = Fields::open(node, LISTENER, problems)?;
    let (is_proxy, is_public) = (name == "proxy", name == "public");
    let listener;
    (listener, *tls) = with_binds(&fields, sources, if is_proxy { For::Proxy } else { For::Control });
    let placeholder = fields.flag("placeholder");
    if placeholder.is_some() && !is_proxy {
        fields.say(fields.at_key("placeholder"), "no end user is named here: `placeholder` is the proxy listener's", None);
    }
    let per_address_max = fields.get("connections_per_address").and_then(|node| {
        let number = scalar::number(node, problems)?;
        if is_public && number > 0 {
            return usize::try_from(number).ok();
        }
        let message =
            if is_public { "a browser needs one connection at least" } else { "`connections_per_address` is the public listener's" };
        fields.say(&node.at, message, None);
        None
    });
    fields.finish();
    Some(Listener { placeholder, per_address_max, ..listener? })
}

/// `bind`, `hosts` and `tls` of a listener.
pub(super) fn with_binds(fields: &Fields<'_>, sources: &Sources<'_>, for_: For) -> (Option<Listener>, Option<Arc<ServerTls>>) {
    let tls = listen_tls::read(fields, sources, for_);
    let listener = binds_and_hosts(fields, sources).map(|listener| Listener { tls: fields.peek("tls").is_some(), ..listener });
    if let Some(listener) = &listener
        && listener.tls
        && listener.binds.iter().all(|bind| matches!(bind, Bind::Unix(_)))
    {
        fields.say(fields.at_key("tls"), "unix sockets alone need no `tls`: it is for addresses", None);
    }
    (listener, tls)
}

fn binds_and_hosts(fields: &Fields<'_>, sources: &Sources<'_>) -> Option<Listener> {
    let problems = fields.problems;
    let bind = fields.need("bind");
    let hosts = fields.texts("hosts").unwrap_or_default().into_iter().filter_map(|(node, text)| host(text, node, problems)).collect();
    let mut all = Vec::new();
    match bind.map(|node| (&node.value, node)) {
        Some((Value::List(_), node)) => {
            for node in list(node, problems).unwrap_or_default() {
                all.extend(binds(node, sources, problems)?);
            }
            if all.is_empty() {
                problems.say(&node.at, "`bind` names no address", None);
                return None;
            }
        }
        Some((_, node)) => all = binds(node, sources, problems)?,
        None => return None,
    }
    Some(Listener { binds: all, hosts, ..Listener::default() })
}

/// What one text binds: `localhost:PORT` is both loopback addresses.
fn binds(node: &Node, sources: &Sources<'_>, problems: &Problems) -> Option<Vec<Bind>> {
    let text = scalar::text(node, problems)?;
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            problems.say(&node.at, "`unix:` names no path", None);
            return None;
        }
        return Some(vec![Bind::Unix(sources.path(path))]);
    }
    let parsed = match text.strip_prefix("localhost:").map(str::parse) {
        Some(Ok(port)) => Some(both_loopbacks(port)),
        Some(Err(_)) => None,
        None => text.parse().ok().map(|address| vec![Bind::Tcp(address)]),
    };
    let Some(parsed) = parsed else {
        let hint = match text.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() && matches!(host, "" | "*") => {
                Some(format!("for every address write `0.0.0.0:{port}`"))
            }
            _ if text.parse::<u16>().is_ok() => Some(format!("an address is missing: `127.0.0.1:{text}`?")),
            _ if text.parse::<IpAddr>().is_ok() => Some("a port is missing".to_owned()),
            _ => None,
        };
        problems.say(&node.at, format!("expected an address such as `127.0.0.1:7070`, or `unix:PATH`, found {}", node.found()), hint);
        return None;
    };
    Some(parsed)
}

fn both_loopbacks(port: u16) -> Vec<Bind> {
    vec![Bind::Tcp((Ipv4Addr::LOCALHOST, port).into()), Bind::Tcp((Ipv6Addr::LOCALHOST, port).into())]
}

/// A host as `Host` may say it, lower case, without a port.
fn host(text: &str, node: &Node, problems: &Problems) -> Option<Box<str>> {
    let plain = Url::parse(&format!("http://{text}/")).ok().filter(|url| {
        url.port().is_none() && !text.contains([':', '/', '@', '?', '#', '\\', '*']) || text.starts_with('[') && url.port().is_none()
    });
    let host = plain.as_ref().and_then(Url::host_str).map(Into::into);
    if host.is_none() {
        problems.say(&node.at, format!("expected a host name without a port, found {}", node.found()), None);
    }
    host
}

fn allowed_origins(fields: &Fields<'_>) -> Vec<Box<str>> {
    let mut origins = Vec::new();
    for (node, text) in fields.texts("allowed_origins").unwrap_or_default() {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        match url.map(|url| url.origin().ascii_serialization()) {
            Some(origin) if origin == text.to_ascii_lowercase() => origins.push(origin.into()),
            _ => {
                let hint = "write scheme, host and port as a browser sends them: `http://localhost:3000`, without a path".to_owned();
                fields.say(&node.at, format!("expected an origin, found {}", node.found()), Some(hint));
            }
        }
    }
    origins
}

/// `public_url`, by default the public listener's port on localhost.
pub(super) fn public_url(root: &Fields<'_>, public: &Listener) -> Url {
    let port = public.binds.iter().find_map(|bind| match bind {
        Bind::Tcp(address) => Some(address.port()),
        Bind::Unix(_) => None,
    });
    #[expect(clippy::expect_used, reason = "a host and a number make a URL")]
    let default = {
        let scheme = if public.tls { "https" } else { "http" };
        Url::parse(&format!("{scheme}://localhost:{}", port.unwrap_or(7071))).expect("a URL")
    };
    let Some(node) = root.get("public_url") else { return default };
    let Some(url) = scalar::any_url(node, root.problems) else { return default };
    if url.query().is_some() {
        root.say(&node.at, "`public_url` has no query (`?…`)", None);
    }
    if url.scheme() == "http" && !scalar::is_loopback(&url) {
        root.problems
            .warn("public_url is plain http:// off loopback: most providers refuse such a redirect URI, and cookies travel unprotected");
    }
    url
}
