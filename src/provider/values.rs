//! Floor 2: which values of a connection a registration knows, and what they make of a host.
//!
//! What stands in a connection's metadata was checked when it was learnt, but an app or an operator may have written it since: each value is
//! judged once more by its [`Kind`] before it is used, and a host that comes of it by `token_hosts`.

use super::place::{Capture, Kind};
use super::text::Filled;
use super::{Dialect, Registration};
use crate::upstream::Origin;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use url::Url;

/// The plain values among a connection's metadata, as texts, by name.
pub type Metadata = BTreeMap<Box<str>, Box<str>>;

/// The origin of a route whose host holds values: `{subdomain}.zendesk.com`.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginTemplate {
    pub tls: bool,
    /// Host and maybe port.
    pub authority: Filled,
    /// The same as the operator wrote it, to be shown.
    pub written: Box<str>,
    /// Whether plain http may leave this machine.
    pub plain_http_anywhere: bool,
}

/// Why there is no origin for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoOrigin {
    /// This value is not there, or not of its kind.
    Missing(Box<str>),
    /// The values make a host that no token of this registration may be sent to.
    Refused,
}

impl Dialect {
    /// What a value of that name may be; several where it is declared more than once.
    pub fn kinds<'d>(&'d self, name: &str) -> impl Iterator<Item = &'d Kind> {
        let inputs = self.inputs.iter().map(|input| (&*input.name, &input.kind));
        let captured = self.captures().map(|capture| (&*capture.name, &capture.kind));
        inputs.chain(captured).filter_map(move |(known, kind)| (known == name).then_some(kind))
    }

    /// Every name that a connection may have a value of, with the text that the registration gives for all connections.
    pub fn value_names(&self) -> Vec<(&str, Option<&str>)> {
        let mut names: Vec<(&str, Option<&str>)> = self.inputs.iter().map(|input| (&*input.name, input.value.as_deref())).collect();
        for capture in self.captures() {
            if !names.iter().any(|(known, _)| *known == &*capture.name) {
                names.push((&capture.name, None));
            }
        }
        names
    }

    /// Whether that name may stand in a host.
    pub fn fits_host(&self, name: &str) -> bool {
        self.kinds(name).all(Kind::fits_host) && self.kinds(name).next().is_some()
    }

    /// One connection's value, judged anew.
    pub fn value(&self, metadata: &Metadata, name: &str) -> Option<Box<str>> {
        let given = self.inputs.iter().find(|input| *input.name == *name).and_then(|input| input.value.as_ref());
        let text = given.or_else(|| metadata.get(name))?;
        self.kinds(name).find_map(|kind| kind.keep(text))
    }

    fn captures(&self) -> impl Iterator<Item = &Capture> {
        self.metadata.iter().chain(self.lookups.iter().flat_map(|lookup| &lookup.metadata))
    }
}

impl Kind {
    /// The value as it is used, of a text that is kept; `None` where it is not of this kind. An origin is kept as its host and port.
    pub fn keep(&self, kept: &str) -> Option<Box<str>> {
        match self {
            Kind::Origin(_) if !kept.contains("://") => self.check(&format!("https://{kept}")),
            Kind::Text | Kind::Label | Kind::Host(_) | Kind::Origin(_) => self.check(kept),
        }
    }

    /// Texts that stand for all that may come: with them a host can be judged at load.
    fn samples(&self, reg: &Registration) -> Vec<Box<str>> {
        let exact = reg.token_hosts.iter().filter(|allowed| !allowed.host.starts_with('*'));
        match self {
            Kind::Text | Kind::Label => {
                let labels = exact.flat_map(|allowed| allowed.host.split('.')).filter_map(|label| self.check(label));
                std::iter::once("a".into()).chain(labels).collect()
            }
            Kind::Host(hosts) | Kind::Origin(hosts) => {
                let own = hosts.iter().map(|host| host.strip_prefix("*.").map_or_else(|| host.to_string(), |parent| format!("a.{parent}")));
                let ports = reg.token_hosts.iter().map(|allowed| allowed.port).filter(|port| *port != 443);
                let ported = own.clone().flat_map(|host| ports.clone().map(move |port| format!("{host}:{port}")));
                let listed = exact.map(|allowed| format!("{}:{}", allowed.host, allowed.port)).filter_map(|host| self.keep(&host));
                own.clone().chain(ported).filter_map(|host| self.keep(&host)).chain(listed).collect()
            }
        }
    }
}

impl OriginTemplate {
    /// The origin of one connection, whose `value`s were judged by their kinds.
    ///
    /// # Errors
    /// When a value is missing, or the host is none that this registration's tokens may be sent to.
    pub fn origin<'v>(&self, reg: &Registration, value: impl Fn(&str) -> Option<&'v str>) -> Result<Arc<Origin>, NoOrigin> {
        if let Some(name) = self.authority.names().find(|name| value(name).is_none()) {
            return Err(NoOrigin::Missing(name.into()));
        }
        let authority = self.authority.fill(|name| value(name).map(Cow::Borrowed)).ok_or(NoOrigin::Refused)?;
        let origin = origin(self.tls, &authority).ok_or(NoOrigin::Refused)?;
        let secure = self.tls || self.plain_http_anywhere || origin.is_loopback();
        let allowed = reg.token_host_allowed_for(&origin.host, origin.port, |name| value(name).map(Cow::Borrowed));
        if secure && allowed { Ok(reg.proofs.reach(origin)) } else { Err(NoOrigin::Refused) }
    }

    /// Whether some connection could call it: asked at load, so that a route that never works is told.
    pub fn is_possible(&self, reg: &Registration) -> bool {
        let mut ways: Vec<BTreeMap<&str, Box<str>>> = vec![BTreeMap::new()];
        for name in self.authority.names() {
            let samples: Vec<Box<str>> = reg.dialect.kinds(name).flat_map(|kind| kind.samples(reg)).collect();
            ways = ways
                .iter()
                .flat_map(|way| {
                    samples.iter().map(move |sample| way.iter().map(|(k, v)| (*k, v.clone())).chain([(name, sample.clone())]).collect())
                })
                .take(256)
                .collect();
        }
        ways.iter().any(|way| self.origin(reg, |name| way.get(name).map(|text| &**text)).is_ok())
    }
}

/// The origin of an authority; the URL parser settles its spellings, so that what is judged is what is dialled.
pub fn origin(tls: bool, authority: &str) -> Option<Arc<Origin>> {
    let scheme = if tls { "https" } else { "http" };
    let plain =
        !authority.is_empty() && !authority.contains(|c: char| c.is_whitespace() || matches!(c, '%' | '/' | '?' | '#' | '\\' | '@'));
    let url = Url::parse(&format!("{scheme}://{authority}/")).ok().filter(|_| plain)?;
    Origin::new(tls, url.host_str()?, url.port_or_known_default()?).ok()
}
