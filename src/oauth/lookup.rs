//! Calls right after connecting for what the token reply does not hold (Q57): the tenant, the data centre, the API's host.

use super::client::unanswered;
use super::discovery::allowed;
use super::error::TokenError;
use super::shape::{header, lacking};
use super::values::{Named, Values, capture};
use super::{Grant, TokenClient};
use crate::attach::{Around, Prepared, Scheme, dpop};
use crate::base::credential::Credential;
use crate::provider::{Lookup, Registration};
use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, Response, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;

impl TokenClient {
    /// What the definition's lookups leave in the metadata. Each may name in its URL what stood in the metadata before, or what one before it
    /// left. The token goes only to a host that the definition writes, or that it lists.
    ///
    /// # Errors
    /// When a lookup failed that the connection cannot be without; another's failure is told in the log alone.
    pub async fn look_up(
        &self,
        reg: &Registration,
        grant: &Grant,
        metadata: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, TokenError> {
        let mut known = metadata.clone();
        let mut found = BTreeMap::new();
        for lookup in &reg.dialect.lookups {
            match self.one(reg, lookup, grant, &known).await {
                Ok(values) => {
                    known.extend(values.clone());
                    found.extend(values);
                }
                Err(error) if lookup.metadata.iter().any(|capture| capture.required) => return Err(error),
                Err(error) => tracing::warn!(provider.id = %reg.id, error = %error, "a lookup after connecting found nothing"),
            }
        }
        Ok(found)
    }

    async fn one(
        &self,
        reg: &Registration,
        lookup: &Lookup,
        grant: &Grant,
        metadata: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, TokenError> {
        let named = Named { reg, values: Values::of(metadata), standard: &[], redirect_uri: None };
        let url = named.url(&lookup.url).ok_or_else(lacking)?;
        allowed(&url)?;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        if !reg.token_host_allowed_for(host, port, |name| named.in_url(name)) {
            return Err(TokenError::cannot("a lookup leads to a host that is not among `token_hosts`"));
        }
        let request = Request::get(url.as_str()).header(ACCEPT, HeaderValue::from_static("application/json")).body(Bytes::new());
        let mut request = request.map_err(|_| TokenError::cannot("a lookup's URL cannot be used"))?;
        let companions = &reg.dialect.api;
        for (name, text) in companions.headers.iter().chain(&companions.set_headers) {
            if let Some(value) = header(text, &named)? {
                request.headers_mut().insert(name, value);
            }
        }
        let credential =
            Credential { access_token: grant.access_token.clone(), token_type: grant.token_type.clone(), key: grant.key.clone() };
        let (scheme, prepared) = (lookup.scheme.as_ref().unwrap_or(&reg.attach), Prepared::new());
        let mut response = self.look(reg, scheme, (&credential, &prepared), request.clone()).await?;
        // The API's own nonce (RFC 9449 §9), for which it is asked once more.
        if let Some(nonce) = dpop::nonce_in(response.headers()).filter(|_| response.status() == StatusCode::UNAUTHORIZED) {
            prepared.nonces().learn(0, nonce);
            response = self.look(reg, scheme, (&credential, &prepared), request).await?;
        }
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        let unusable = |why| TokenError::unusable(status, why, retry_after);
        if !response.status().is_success() {
            return Err(unusable("no success, to a lookup after connecting"));
        }
        // The parser's error may hold a piece of the text.
        let answer: Value = serde_json::from_slice(response.body()).map_err(|_| unusable("no JSON, to a lookup after connecting"))?;
        match capture(&lookup.metadata, &answer) {
            (values, None) => Ok(values.into_iter().map(|(name, value)| (name, value.into())).collect()),
            (_, Some(_)) => Err(unusable("no value that fits, to a lookup after connecting")),
        }
    }

    /// One request of a lookup, the token on it.
    async fn look(
        &self,
        reg: &Registration,
        scheme: &Scheme,
        (credential, prepared): (&Credential, &Prepared),
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        let (mut head, body) = request.into_parts();
        let around = Around { now: self.clock.now(), tls: head.uri.scheme_str() != Some("http"), private: true, server: 0, form: None };
        scheme
            .attach(credential, prepared, &mut head, || around)
            .map_err(|_| TokenError::unusable(200, "a token that cannot be attached", None))?;
        let fetch = self.fetch_for(reg, &head.uri);
        fetch.send(Request::from_parts(head, body)).await.map_err(unanswered)
    }
}
