//! Texts with places (`{subdomain}`): what may stand between the braces is known when they are read, so that a wrong name is told where it stands.

use super::lint;
use crate::config::error::did_you_mean;
use crate::config::fields::{Fields, Problems};
use crate::config::headers;
use crate::config::node::{Node, shown};
use crate::config::scalar;
use crate::provider::{EndpointUrl, Filled, Kind, TokenHost, in_url};
use http::HeaderName;
use std::borrow::Cow;
use url::Url;

/// What an authorization request can hold: it passes through the browser, so no secret.
pub(super) const OF_AUTHORIZE: &[&str] = &["client_id", "redirect_uri", "state", "scope"];
/// What a call to the token endpoint can hold; what is not there in one call leaves its parameter out. A name that ends in `.` is a beginning.
pub(super) const OF_TOKEN: &[&str] =
    &["client_id", "client_secret", "redirect_uri", "code", "state", "scope", "refresh_token", "access_token", "user_code", "callback."];
pub(super) const OF_REVOKE: &[&str] = &["client_id", "client_secret", "token", "access_token"];
pub(super) const OF_API: &[&str] = &["client_id"];

/// One input or metadata value that is declared.
pub(super) struct Value {
    pub(super) name: Box<str>,
    pub(super) kind: Kind,
    /// What the registration says it is.
    pub(super) fixed: Option<Box<str>>,
}

/// Every value that may stand in a place.
#[derive(Default)]
pub(super) struct Places {
    pub(super) values: Vec<Value>,
    pub(super) client_id: Option<Box<str>>,
    /// The definition is not there, so that any name may be one of its.
    pub(super) open: bool,
}

impl Places {
    fn is_declared(&self, name: &str) -> bool {
        self.values.iter().any(|value| *value.name == *name)
    }

    /// Whether a value may stand in a host: whatever declares it must be of such a kind.
    fn fits_host(&self, name: &str) -> bool {
        self.is_declared(name) && self.values.iter().filter(|value| *value.name == *name).all(|value| value.kind.fits_host())
    }

    fn fixed(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values.iter().filter(|value| *value.name == *name).find_map(|value| value.fixed.as_deref()).map(Cow::Borrowed)
    }

    /// A value as it might be, for a look at the whole.
    fn sample(&self, name: &str) -> Cow<'_, str> {
        let kind = self.values.iter().find(|value| *value.name == *name).map(|value| &value.kind);
        match kind {
            _ if self.fixed(name).is_some() => self.fixed(name).unwrap_or_default(),
            // Plain http is for loopback alone, and whatever comes to stand there is held to it once more.
            Some(Kind::Host(hosts) | Kind::Origin(hosts)) => {
                let mut names = hosts.iter().map(|host| host.split(':').next().unwrap_or_default());
                names.find(|name| matches!(*name, "localhost" | "127.0.0.1")).unwrap_or("x.example.com").into()
            }
            Some(Kind::Label | Kind::Text) | None => "x".into(),
        }
    }

    /// A text; `standard` is what may stand in it besides the declared values. Those that are fixed are filled in.
    pub(super) fn text(&self, node: &Node, standard: &[&str], problems: &Problems) -> Option<Filled> {
        let filled = self.parsed(node, standard, problems)?;
        Some(filled.fill_known(|name| self.fixed(name)))
    }

    fn parsed(&self, node: &Node, standard: &[&str], problems: &Problems) -> Option<Filled> {
        let text = scalar::template(node, problems)?;
        let filled = match Filled::parse(text) {
            Ok(filled) => filled,
            Err(fault) => {
                problems.say_inside(node, fault.offset, fault.message, None);
                return None;
            }
        };
        let known = |name: &str| {
            standard.iter().any(|other| *other == name || (other.ends_with('.') && name.len() > other.len() && name.starts_with(other)))
        };
        let mut whole = true;
        for name in filled.names().filter(|name| !self.open && !known(name) && !self.is_declared(name)) {
            let offset = text.find(&format!("{{{name}")).or_else(|| text.find(name)).unwrap_or_default();
            let declared = self.values.iter().map(|value| &*value.name);
            let hint = did_you_mean(name, standard.iter().copied().chain(declared))
                .unwrap_or_else(|| "declare it under `inputs` or `metadata`; a literal `{` is `{{`".to_owned());
            problems.say_inside(node, offset, format!("no value is called `{}` here", shown(name)), Some(hint));
            whole = false;
        }
        whole.then_some(filled)
    }

    /// An endpoint's URL.
    pub(super) fn url(&self, node: &Node, problems: &Problems) -> Option<EndpointUrl> {
        let text = scalar::template(node, problems)?;
        if !text.contains(['{', '}']) {
            let url = scalar::secure_url(node, problems)?;
            lint::forbidden_in_url(&url, node, problems);
            return Some(EndpointUrl::Fixed(url));
        }
        let filled = self.parsed(node, &["client_id"], problems)?;
        let refuse = |offset: usize, message: &str, hint: Option<&str>| {
            problems.say_inside(node, offset, message, hint.map(str::to_owned));
            None
        };
        let start = match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http") => scheme.len() + 3,
            _ => return refuse(0, "expected a URL that begins with `https://`", Some("a place stands behind the `://`")),
        };
        let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |end| start + end);
        if let Some(hash) = text[end..].find('#') {
            return refuse(
                end + hash,
                "a URL here has no fragment (`#…`)",
                Some("`calls.authorize.fragment` puts one behind the authorization URL"),
            );
        }
        if text.contains("{sha256:") {
            return refuse(0, "a hash cannot stand in a URL", None);
        }
        if start == end {
            // Parsers skip further slashes, so that a place of the path would come to be the host.
            return refuse(start, "a URL needs a host", None);
        }
        if text[start..end].contains('@') {
            return refuse(start, "a URL here has no user or password", None);
        }
        if !self.is_host(&text[start..end], start, node, problems) {
            return None;
        }
        let sample = filled.fill(|name| in_url(self.sample(name))).and_then(|text| Url::parse(&text).ok());
        match sample {
            None => return refuse(0, "this is no URL once its places are filled in", None),
            Some(url) if url.scheme() == "http" && !scalar::is_loopback(&url) => {
                return refuse(0, "expected an https:// URL", Some("plain http:// is for loopback hosts alone"));
            }
            Some(url) => lint::forbidden_in_url(&url, node, problems),
        }
        let known =
            filled.fill_known(|name| in_url(if name == "client_id" { self.client_id.as_deref()?.into() } else { self.fixed(name)? }));
        match known.fixed().map(Url::parse) {
            None => Some(EndpointUrl::PerConnection(known)),
            Some(url) => url.ok().map(EndpointUrl::Fixed),
        }
    }

    /// A host with places, and perhaps a port: one of `token_hosts`.
    pub(super) fn host_text(&self, node: &Node, problems: &Problems) -> Option<Filled> {
        let filled = self.parsed(node, &[], problems)?;
        let text = scalar::template(node, problems)?;
        if !self.is_host(text, 0, node, problems) {
            return None;
        }
        let sample = filled.fill(|name| in_url(self.sample(name)));
        if text.contains("{sha256:") || sample.is_none_or(|sample| TokenHost::parse(&sample).is_none()) {
            problems.say_inside(node, 0, "this is no host once its places are filled in", None);
            return None;
        }
        Some(filled.fill_known(|name| in_url(self.fixed(name)?)))
    }

    /// Whether what may fill these places makes no host that the definition does not mean. `offset` is where the text begins in the node's.
    fn is_host(&self, authority: &str, offset: usize, node: &Node, problems: &Problems) -> bool {
        let Ok(places) = Filled::parse(authority) else { return false };
        let at = |name: &str| offset + authority.rfind(name).unwrap_or_default();
        let names: Vec<&str> = if self.open { Vec::new() } else { places.names().collect() };
        if let Some(name) = names.iter().find(|name| !self.fits_host(name)) {
            let hint = format!("say `kind: label`, or `kind: host` or `kind: origin` with `hosts`, on `{}`", shown(name));
            problems.say_inside(node, at(name), format!("`{}` may be any text, so it cannot stand in a host", shown(name)), Some(hint));
            return false;
        }
        // What the registration gives is as if it were written here.
        let written = names.iter().fold(authority.to_owned(), |text, name| match self.fixed(name) {
            Some(value) => text.replace(&format!("{{{name}}}"), &value),
            None => text,
        });
        let free = || names.iter().filter(|name| self.fixed(name).is_none());
        let split = |name: &str| written.split_once(&format!("{{{name}}}"));
        let glued = free().filter(|name| !self.is_label(name)).find(|name| {
            let (before, behind) = split(name).unwrap_or_default();
            !(before.is_empty() || before.ends_with('.')) || !(behind.is_empty() || behind.starts_with(['.', ':']))
        });
        if let Some(name) = glued {
            // `{label}{host}` would make `evilexample.com` of `example.com`.
            let message = format!("`{{{}}}` is a whole host: what stands beside it would make another one of it", shown(name));
            problems.say_inside(node, at(name), message, Some("write a `.` between them".into()));
            return false;
        }
        let Some(last) = free().next_back().filter(|name| self.is_label(name)) else { return true };
        // What whoever types the label could register as a domain of his own is no host that we know.
        let behind = written.rsplit('}').next().and_then(|behind| behind.split(':').next()).unwrap_or_default();
        let labels: Vec<&str> = behind.split('.').skip(1).filter(|label| !label.is_empty()).collect();
        if labels.len() >= 2 || labels == ["localhost"] {
            return true;
        }
        let hint = format!("write the provider's domain behind it: `{{{}}}.example.com`", shown(last));
        problems.say_inside(node, at(last), format!("`{}` would choose among hosts that are anyone's", shown(last)), Some(hint));
        false
    }

    fn is_label(&self, name: &str) -> bool {
        self.values.iter().any(|value| *value.name == *name && value.kind == Kind::Label)
    }

    /// A mapping of parameter names to texts.
    pub(super) fn params(&self, fields: &Fields<'_>, key: &'static str, standard: &[&str]) -> Vec<(Box<str>, Filled)> {
        let entries = fields.pairs(key).iter();
        entries.filter_map(|(name, node)| Some((name.text.as_str().into(), self.text(node, standard, fields.problems)?))).collect()
    }

    /// A mapping of header names to texts.
    pub(super) fn headers(&self, fields: &Fields<'_>, key: &'static str, standard: &[&str]) -> Vec<(HeaderName, Filled)> {
        let mut all = Vec::new();
        for (header, node) in fields.pairs(key) {
            let Ok(name) = HeaderName::from_bytes(header.text.as_bytes()) else {
                fields.say(&header.at, format!("`{}` cannot be the name of a header", shown(&header.text)), None);
                continue;
            };
            if let Some(why) = headers::reserved(&name) {
                fields.say(&header.at, format!("`{key}` cannot touch `{name}`: {why}"), None);
                continue;
            }
            all.extend(self.text(node, standard, fields.problems).map(|text| (name, text)));
        }
        all
    }
}
