//! What a registration's words become for one connection: its values, what goes on its calls besides the token, and the hosts they make.
//!
//! Built at the first call that needs it and shared by all others of the token; a registration that was reloaded is noticed by its pointer.

use super::keeper::Token;
use crate::provider::{Dialect, Filled, Metadata, NoOrigin, OriginTemplate, Registration};
use crate::route::{Extras, Need};
use crate::upstream::Origin;
use arc_swap::{ArcSwap, ArcSwapOption};
use http::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::sync::Arc;

/// One connection's own part of its calls.
#[derive(Debug)]
pub struct Own {
    reg: Arc<Registration>,
    pub extras: Extras,
    /// Set over the client's.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Unless the client sent them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The origins that its values made so far. Few: one for each host that routes write.
    origins: ArcSwap<Vec<(Arc<OriginTemplate>, Arc<Origin>)>>,
}

/// Why a call of this connection cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnFault {
    /// The value of this name is missing, or is none that can stand where it is needed.
    Value(Box<str>),
    /// The values make a host that tokens may not be sent to.
    Host,
}

/// The slot of a token that holds its [`Own`], and what that is built from.
#[derive(Default)]
pub(super) struct OwnSlot {
    metadata: Option<Box<Metadata>>,
    built: ArcSwapOption<Own>,
}

/// Names nothing: what metadata holds came from providers and apps, and a token's `Debug` may be logged.
impl std::fmt::Debug for OwnSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnSlot({} values)", self.metadata.as_ref().map_or(0, |metadata| metadata.len()))
    }
}

impl OwnSlot {
    pub(super) fn new(metadata: &std::collections::BTreeMap<String, serde_json::Value>) -> Self {
        let plain = metadata.iter().filter_map(|(name, value)| {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(flag) => flag.to_string(),
                _ => return None,
            };
            Some((name.as_str().into(), text.into()))
        });
        let plain: Metadata = plain.collect();
        OwnSlot { metadata: (!plain.is_empty()).then(|| Box::new(plain)), built: ArcSwapOption::empty() }
    }
}

impl Token {
    /// The connection's own part of its calls, by this registration.
    pub fn own(&self, reg: &Arc<Registration>) -> Arc<Own> {
        if let Some(built) = &*self.own.built.load()
            && Arc::ptr_eq(&built.reg, reg)
        {
            return Arc::clone(built);
        }
        let none = Metadata::new();
        let built = Arc::new(Own::new(reg, self.own.metadata.as_deref().unwrap_or(&none)));
        // A second caller that raced here built the same; whichever is kept is right.
        self.own.built.store(Some(Arc::clone(&built)));
        built
    }
}

impl Own {
    pub(super) fn new(reg: &Arc<Registration>, metadata: &Metadata) -> Own {
        let dialect: &Dialect = &reg.dialect;
        let names = dialect.value_names();
        let values = names.iter().filter_map(|(name, _)| Some((*name, dialect.value(metadata, name)?)));
        let extras = Extras::new(values);
        let fill = |text: &Filled| {
            text.fill(|name| match name {
                "client_id" => Some(Cow::Borrowed(&*reg.client_id)),
                name => extras.get(name).map(Cow::Borrowed),
            })
        };
        // One whose value is missing is left out, as on token calls.
        let headers = |headers: &[(HeaderName, Filled)]| -> Vec<(HeaderName, HeaderValue)> {
            let one = |(name, text): &(HeaderName, Filled)| Some((name.clone(), HeaderValue::try_from(fill(text)?).ok()?));
            headers.iter().filter_map(one).collect()
        };
        let pairs = |pairs: &[(Box<str>, Filled)]| -> Vec<(Box<str>, String)> {
            pairs.iter().filter_map(|(name, text)| Some((name.clone(), fill(text)?))).collect()
        };
        let api = &dialect.api;
        let (set_headers, headers) = (headers(&api.set_headers), headers(&api.headers));
        let (query, set_query) = (pairs(&api.query), pairs(&api.set_query));
        let extras = extras.with_query(&query, &set_query);
        Own { reg: Arc::clone(reg), extras, set_headers, headers, origins: ArcSwap::default() }
    }

    /// Whether everything is there that a route's texts hold.
    ///
    /// # Errors
    /// With the first that is not.
    pub fn meets(&self, needs: &[Need]) -> Result<(), OwnFault> {
        needs.iter().find(|need| !self.extras.meets(need)).map_or(Ok(()), |need| Err(OwnFault::Value(need.name.clone())))
    }

    /// Where this connection's calls of a route go.
    ///
    /// # Errors
    /// When a value is missing, or tokens may not be sent there.
    pub fn origin(&self, template: &Arc<OriginTemplate>) -> Result<Arc<Origin>, OwnFault> {
        if let Some((_, origin)) = self.origins.load().iter().find(|(known, _)| Arc::ptr_eq(known, template)) {
            return Ok(Arc::clone(origin));
        }
        let origin = template.origin(&self.reg, |name| self.extras.get(name)).map_err(|none| match none {
            NoOrigin::Missing(name) => OwnFault::Value(name),
            NoOrigin::Refused => OwnFault::Host,
        })?;
        self.origins.rcu(|known| {
            let mut all = Vec::clone(known);
            all.push((Arc::clone(template), Arc::clone(&origin)));
            all
        });
        Ok(origin)
    }
}
