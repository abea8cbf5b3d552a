//! The authorization request (RFC 6749 §4.1.1): the URL that the end user's browser is sent to, and whose answer comes back.

use super::cache::Missing;
use super::discovery::{Endpoint, allowed, failed, is_issuer};
use super::form::{Pairs, put, put_resources};
use super::reply;
use super::shape::{Call, lacking};
use super::values::{Named, Values};
use super::{TokenClient, TokenError};
use crate::provider::{CallShape, Pkce, Registration};
use url::Url;

/// Longer references are none: they would not fit a browser's URL.
const REQUEST_URI_BYTES_MAX: usize = 2048;

/// What one authorization request asks, besides what its registration says of itself.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    /// As registered at the provider, byte for byte.
    pub redirect_uri: &'a str,
    pub state: &'a str,
    pub scopes: &'a [String],
    /// The challenge (RFC 7636 §4.2) as the registration's `pkce` has it.
    pub challenge: Option<&'a str>,
    /// OIDC Core §3.1.2.1; see [`wants_nonce`].
    pub nonce: Option<&'a str>,
    /// Further parameters of this one request; they go before the registration's, and never before those above.
    pub params: &'a [(String, String)],
    /// What the definition's texts and URLs may name of this connection.
    pub values: Values<'a>,
}

/// Whether an authorization request for these scopes must carry a nonce: it asks for an id token that can be verified. A registration
/// without an issuer has no keys to verify one by, so that its `openid` brings an id token that nobody reads.
pub fn wants_nonce(reg: &Registration, scopes: &[String]) -> bool {
    reg.issuer.is_some() && scopes.iter().any(|scope| scope == "openid")
}

impl TokenClient {
    /// The URL to send the browser to. With a PAR endpoint the request is pushed there first (RFC 9126): where `par_url` names one, or the
    /// metadata from which the authorization endpoint came requires it. An endpoint that is merely offered is not used, for some refuse
    /// clients that did not sign up for it.
    ///
    /// # Errors
    /// When the provider has no authorization endpoint, or one of its endpoints that is needed first does not answer.
    pub async fn authorization_url(&self, reg: &Registration, request: &AuthorizeRequest<'_>) -> Result<Url, TokenError> {
        let shape = &reg.dialect.calls.authorize;
        let call = Call { reg, shape, values: request.values, redirect_uri: Some(request.redirect_uri) };
        let mut standard = pairs(reg, request);
        if let Some(thumbprint) = self.thumbprint() {
            put(&mut standard, "dpop_jkt", thumbprint);
        }
        let endpoint = match call.own_url(&standard)? {
            Some(url) => url,
            None => self
                .endpoint(reg, Endpoint::Authorization, request.values)
                .await?
                .ok_or_else(|| TokenError::cannot("the provider has no authorization endpoint"))?,
        };
        let mut url = match self.par_endpoint(reg, request.values).await? {
            None => with(endpoint, &call.pairs(&standard)),
            Some(par) => {
                let request_uri = self.push(call, &par, &standard).await?;
                // RFC 9126 §4: these two alone, for all else was pushed.
                let pairs = [("client_id".to_owned(), reg.client_id.to_string()), ("request_uri".to_owned(), request_uri)];
                with(endpoint, &pairs)
            }
        };
        if let Some(fragment) = &shape.fragment {
            url.set_fragment(Some(fragment.trim_start_matches('#')));
        }
        Ok(url)
    }

    async fn par_endpoint(&self, reg: &Registration, values: Values<'_>) -> Result<Option<Url>, TokenError> {
        if let Some(url) = &reg.par_url {
            let url = Named { reg, values, standard: &[], redirect_uri: None }.url(url).ok_or_else(lacking)?;
            allowed(&url)?;
            return Ok(Some(url));
        }
        let (Some(issuer), None) = (&reg.issuer, &reg.authorize_url) else { return Ok(None) };
        let metadata = self.metadata(reg, issuer).await.map_err(failed)?;
        let par = metadata.mtls.par.as_ref().filter(|_| reg.proofs.identity.is_some()).or(metadata.par.as_ref());
        match (par, metadata.par_required) {
            (Some(url), true) => Ok(Some(url.clone())),
            (None, true) => Err(TokenError::cannot("the provider requires pushed requests and names no endpoint for them")),
            (_, false) => Ok(None),
        }
    }

    /// RFC 9126 §2.1.
    async fn push(&self, call: Call<'_>, url: &Url, standard: &Pairs) -> Result<String, TokenError> {
        let (pairs, plain) = (call.pairs(standard), CallShape::default());
        let response = self.post(Call { shape: &plain, ..call }, url, pairs).await?;
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        let members = reply::members(status, response.body(), call.reg).map_err(|fault| fault.into_error(status, retry_after))?;
        let request_uri = members.get("request_uri").and_then(serde_json::Value::as_str);
        let fits = |uri: &&str| !uri.is_empty() && uri.len() <= REQUEST_URI_BYTES_MAX && !uri.chars().any(char::is_control);
        let request_uri = request_uri.filter(fits).ok_or_else(|| TokenError::unusable(status, "no request_uri", retry_after))?;
        Ok(request_uri.to_owned())
    }

    /// Whether the callback's `iss` is this provider's: the same text (RFC 9207 §2.4).
    ///
    /// # Errors
    /// When it is another's, or is missing though the provider promises it, or when what it promises cannot be learned.
    pub async fn check_issuer(&self, reg: &Registration, iss: Option<&str>) -> Result<(), TokenError> {
        // Whose answer it is cannot be told by `iss` then; that each provider has a redirect URI of its own tells it (RFC 9700 §4.4.2).
        let Some(issuer) = &reg.issuer else { return Ok(()) };
        match iss {
            Some(iss) if is_issuer(iss, issuer, &reg.dialect.issuers) => Ok(()),
            Some(_) => Err(TokenError::cannot("the answer is another provider's (`iss`)")),
            None => match self.metadata(reg, issuer).await {
                Ok(metadata) if metadata.iss_promised => Err(TokenError::cannot("the answer does not say whose it is (no `iss`)")),
                Ok(_) => Ok(()),
                // An issuer that publishes nothing promises nothing.
                Err(Missing::Absent) => Ok(()),
                Err(missing) => Err(failed(missing)),
            },
        }
    }
}

/// Every parameter once, but for `resource`. The protocol's own come first, so that none of the others can take their place.
fn pairs(reg: &Registration, request: &AuthorizeRequest<'_>) -> Pairs {
    let mut pairs = Pairs::new();
    put(&mut pairs, "response_type", "code");
    put(&mut pairs, "client_id", &reg.client_id);
    put(&mut pairs, "redirect_uri", request.redirect_uri);
    put(&mut pairs, "state", request.state);
    let groups = reg.dialect.scope_groups.iter();
    for (param, scopes) in std::iter::once(("scope", in_group(reg, request.scopes, None)))
        .chain(groups.map(|(group, param)| (&**param, in_group(reg, request.scopes, Some(group)))))
    {
        if !scopes.is_empty() {
            put(&mut pairs, param, &scopes.join(&reg.scope_separator));
        }
    }
    if let Some(challenge) = request.challenge {
        put(&mut pairs, "code_challenge", challenge);
        put(&mut pairs, "code_challenge_method", if reg.pkce == Pkce::Plain { "plain" } else { "S256" });
    }
    if let Some(nonce) = request.nonce {
        put(&mut pairs, "nonce", nonce);
    }
    put_resources(&mut pairs, reg);
    for (name, value) in request.params.iter().filter(|(name, _)| !is_definitions(reg, name)) {
        put(&mut pairs, name, value);
    }
    for (name, value) in &reg.authorize_params {
        put(&mut pairs, name, value);
    }
    pairs
}

/// Whether the authorization request has a parameter of this name by the definition: one of the protocol's under another name, a group of
/// scopes, or one with a value of its own. An app's would stand beside it, and which of the two counts would be the provider's to choose.
pub fn is_definitions(reg: &Registration, name: &str) -> bool {
    let shape = &reg.dialect.calls.authorize;
    let renamed = shape.rename.iter().map(|(_, theirs)| &**theirs);
    let groups = reg.dialect.scope_groups.iter().map(|(_, param)| &**param);
    renamed.chain(groups).chain(shape.params.iter().map(|(name, _)| &**name)).any(|own| own == name)
}

/// The scopes of one group, or those of none: `user=search:read` is `search:read` in the group `user` (Q22).
pub fn in_group<'s>(reg: &Registration, scopes: &'s [String], group: Option<&str>) -> Vec<&'s str> {
    let split = |scope: &'s String| match scope.split_once('=') {
        Some((name, bare)) if reg.dialect.scope_groups.iter().any(|(known, _)| **known == *name) => (Some(name), bare),
        _ => (None, scope.as_str()),
    };
    scopes.iter().map(split).filter(|(name, _)| *name == group).map(|(_, bare)| bare).collect()
}

/// The endpoint with these parameters behind what its query holds already (RFC 6749 §3.1), less what would be there twice.
fn with(endpoint: Url, pairs: &[(String, String)]) -> Url {
    let ours = |name: &str| pairs.iter().any(|(other, _)| other == name);
    let mut url = endpoint.clone();
    if endpoint.query_pairs().any(|(name, _)| ours(&name)) {
        url.query_pairs_mut().clear().extend_pairs(endpoint.query_pairs().filter(|(name, _)| !ours(name)));
    }
    url.query_pairs_mut().extend_pairs(pairs);
    url
}
