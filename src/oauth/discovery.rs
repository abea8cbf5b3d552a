//! Discovery: what an issuer publishes about itself (RFC 8414, OpenID Connect Discovery 1.0), so that `issuer` alone is a definition.
//!
//! What YAML says goes before what is discovered, and where YAML says all that a call needs nothing is fetched.

use super::cache::{Cache, Missing};
use super::shape::lacking;
use super::values::{Named, Values};
use super::{TokenClient, TokenError, Verdict};
use crate::base::loopback::is_loopback;
use crate::provider::Registration;
use crate::upstream::Fetch;
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, HeaderValue};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// How long metadata is taken as it was; endpoints move seldom and are announced.
const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);

/// Shorter than a token call's: two forms may have to be tried before one.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type MetadataCache = Cache<Metadata>;

pub(super) fn cache(clock: Arc<dyn crate::base::clock::Clock>) -> MetadataCache {
    Cache::new(clock, FRESH_FOR)
}

/// The members that are honoured (RFC 8414 §2, RFC 8628 §4, RFC 9126 §5, RFC 9207 §3).
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) authorization: Option<Url>,
    pub(super) token: Option<Url>,
    pub(super) revocation: Option<Url>,
    pub(super) device_authorization: Option<Url>,
    pub(super) par: Option<Url>,
    pub(super) jwks: Option<Url>,
    /// Where clients call that show a certificate (RFC 8705 §5).
    pub(super) mtls: Aliases,
    pub(super) par_required: bool,
    pub(super) iss_promised: bool,
    /// `id_token_signing_alg_values_supported`; empty where it is not told.
    pub(super) id_token_algorithms: Vec<String>,
}

/// `mtls_endpoint_aliases`.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    pub(super) token: Option<Url>,
    pub(super) revocation: Option<Url>,
    pub(super) device_authorization: Option<Url>,
    pub(super) par: Option<Url>,
}

/// Which endpoint a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Authorization,
    Token,
    Revocation,
    DeviceAuthorization,
}

impl TokenClient {
    /// The endpoint's URL, as YAML says or as discovered. `None`: the provider has no such endpoint.
    pub(super) async fn endpoint(&self, reg: &Registration, endpoint: Endpoint, values: Values<'_>) -> Result<Option<Url>, TokenError> {
        let written = match endpoint {
            Endpoint::Authorization => &reg.authorize_url,
            Endpoint::Token => &reg.token_url,
            Endpoint::Revocation => &reg.revoke_url,
            Endpoint::DeviceAuthorization => &reg.device_authorization_url,
        };
        if let Some(url) = written {
            let named = Named { reg, values, standard: &[], redirect_uri: None };
            let url = named.url(url).ok_or_else(lacking)?;
            allowed(&url)?;
            return Ok(Some(url));
        }
        let Some(issuer) = &reg.issuer else { return Ok(None) };
        let metadata = match self.metadata(reg, issuer).await {
            Ok(metadata) => metadata,
            // An issuer that publishes nothing names no further endpoint, and needs none where YAML names those for tokens.
            Err(Missing::Absent) if reg.token_url.is_some() => return Ok(None),
            Err(missing) => return Err(failed(missing)),
        };
        let alias = match endpoint {
            Endpoint::Authorization => &None,
            Endpoint::Token => &metadata.mtls.token,
            Endpoint::Revocation => &metadata.mtls.revocation,
            Endpoint::DeviceAuthorization => &metadata.mtls.device_authorization,
        };
        let found = match endpoint {
            _ if reg.proofs.identity.is_some() && alias.is_some() => alias,
            Endpoint::Authorization => &metadata.authorization,
            Endpoint::Token => &metadata.token,
            Endpoint::Revocation => &metadata.revocation,
            Endpoint::DeviceAuthorization => &metadata.device_authorization,
        };
        Ok(found.clone())
    }

    /// The token endpoint, without which no call of this room can be made.
    pub(super) async fn token_endpoint(&self, reg: &Registration, values: Values<'_>) -> Result<Url, TokenError> {
        let found = self.endpoint(reg, Endpoint::Token, values).await?;
        found.ok_or_else(|| TokenError::cannot("the provider has no token endpoint"))
    }

    /// An issuer's metadata as this registration may have it, fetched at the first need. It may call itself by the texts of `issuers` besides
    /// (Q68).
    pub(super) async fn metadata(&self, reg: &Registration, issuer: &str) -> Result<Arc<Metadata>, Missing> {
        let further = &*reg.dialect.issuers;
        let fetch = self.documents_for(reg);
        let load = || discover(&fetch, issuer, further);
        if further.is_empty() {
            return self.metadata.get(&kept_under(reg, issuer), load).await;
        }
        // Apart from that of a registration which takes the issuer's own name alone. No issuer holds a line end.
        let all = [&[issuer], &*further.iter().map(|text| &**text).collect::<Vec<_>>()].concat().join("\n");
        self.metadata.get(&kept_under(reg, &all), load).await
    }

    /// The client that reads what a provider publishes: without a certificate, by the registration's trust.
    pub(super) fn documents_for(&self, reg: &Registration) -> Fetch {
        self.fetch.clone().trusting(reg.proofs.trust.as_deref())
    }
}

/// What a document is kept under: one that was read on one trust is nothing to those who trust others.
pub(super) fn kept_under<'u>(reg: &Registration, url: &'u str) -> Cow<'u, str> {
    match &reg.proofs.trust {
        None => Cow::Borrowed(url),
        Some(trust) => Cow::Owned(format!("{} {url}", trust.number())),
    }
}

pub(super) fn failed(missing: Missing) -> TokenError {
    match missing {
        Missing::Absent => TokenError::cannot("the issuer publishes no metadata"),
        Missing::Failed(error) => error,
    }
}

/// OpenID's form first, for most issuers have it and some have it alone; then RFC 8414's.
async fn discover(fetch: &Fetch, issuer: &str, further: &[Box<str>]) -> Result<Metadata, Missing> {
    let url: Url = issuer.parse().map_err(|_| cannot("the issuer is no URL"))?;
    allowed(&url).map_err(Missing::Failed)?;
    let mut outcome = Missing::Absent;
    for place in places(issuer, &url) {
        match document(fetch, &place).await.and_then(|document| read(&document, issuer, further, &url)) {
            Ok(metadata) => return Ok(metadata),
            // What is wrong with a document that is there says more than that there is no other.
            Err(Missing::Absent) => {}
            // The other form stands on the same host, which does not answer.
            Err(Missing::Failed(error)) if !error.answered && error.verdict != Verdict::Misconfigured => {
                return Err(Missing::Failed(error));
            }
            Err(missing) => outcome = missing,
        }
    }
    Err(outcome)
}

/// The two places of an issuer's metadata: appended (OpenID Connect Discovery 1.0 §4), and inserted before the path (RFC 8414 §3.1).
/// Both say that a `/` at the issuer's end goes first.
fn places(issuer: &str, url: &Url) -> Vec<Url> {
    let appended = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')).parse().ok();
    let mut inserted = url.clone();
    inserted.set_path(&format!("/.well-known/oauth-authorization-server{}", url.path().trim_end_matches('/')));
    appended.into_iter().chain([inserted]).collect()
}

/// A published JSON document.
pub(super) async fn document(fetch: &Fetch, url: &Url) -> Result<Value, Missing> {
    // The parser's error may hold a piece of the text.
    serde_json::from_slice(&raw_document(fetch, url).await?).map_err(|_| {
        let summary = "discovery answered 200 with something other than JSON".to_owned();
        Missing::Failed(TokenError::later(summary, true))
    })
}

/// The bytes of a published document.
pub(super) async fn raw_document(fetch: &Fetch, url: &Url) -> Result<Bytes, Missing> {
    let request = Request::get(url.as_str()).header(ACCEPT, HeaderValue::from_static("application/json")).body(Bytes::new());
    let request = request.map_err(|_| cannot("the discovery URL cannot be used"))?;
    let response = fetch
        .clone()
        .with_timeout(TIMEOUT)
        .send(request)
        .await
        .map_err(|error| Missing::Failed(TokenError::later(format!("discovery gave no answer: {}", error.detail), false)))?;
    match response.status().as_u16() {
        200 => Ok(response.into_body()),
        // Some issuers answer other clients' 404 with 400 or 403, or with a page to sign in at.
        300..500 if response.status() != 408 && response.status() != 429 => Err(Missing::Absent),
        status => Err(Missing::Failed(TokenError::later(format!("discovery answered {status}"), true))),
    }
}

fn read(document: &Value, issuer: &str, further: &[Box<str>], at: &Url) -> Result<Metadata, Missing> {
    // RFC 8414 §3.3: identical, or nothing of it is used. Compared as text, for a parsed URL is another text.
    if !document["issuer"].as_str().is_some_and(|told| is_issuer(told, issuer, further)) {
        return Err(cannot("the issuer's metadata is another issuer's: `issuer` must be written exactly as the provider does"));
    }
    let url_in = |object: &Value, name: &str| match object[name].as_str() {
        None => Ok(None),
        Some(text) => match text.parse::<Url>().ok().filter(|url| may_name(at, url)) {
            Some(url) => Ok(Some(url)),
            None => {
                Err(cannot("the issuer's metadata names an endpoint that cannot be called: neither https nor, like itself, on loopback"))
            }
        },
    };
    let url = |name: &str| url_in(document, name);
    let alias = |name: &str| url_in(&document["mtls_endpoint_aliases"], name);
    let flag = |name: &str| document[name] == Value::Bool(true);
    let algorithms = document["id_token_signing_alg_values_supported"].as_array();
    Ok(Metadata {
        authorization: url("authorization_endpoint")?,
        token: url("token_endpoint")?,
        revocation: url("revocation_endpoint")?,
        device_authorization: url("device_authorization_endpoint")?,
        par: url("pushed_authorization_request_endpoint")?,
        jwks: url("jwks_uri")?,
        mtls: Aliases {
            token: alias("token_endpoint")?,
            revocation: alias("revocation_endpoint")?,
            device_authorization: alias("device_authorization_endpoint")?,
            par: alias("pushed_authorization_request_endpoint")?,
        },
        par_required: flag("require_pushed_authorization_requests"),
        iss_promised: flag("authorization_response_iss_parameter_supported"),
        id_token_algorithms: algorithms.into_iter().flatten().filter_map(Value::as_str).take(32).map(str::to_owned).collect(),
    })
}

/// Whether a text names the issuer: its own name byte for byte, or one of the definition's further texts, whose one `*` stands for a single path
/// segment or host label.
pub(super) fn is_issuer(told: &str, issuer: &str, further: &[Box<str>]) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'{' | b'}'));
    told == issuer
        || further.iter().any(|text| match text.split_once('*') {
            Some((before, after)) => told.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(plain),
            None => told == &**text,
        })
}

/// Whether an issuer may send us to this URL (RFC 8414 §6.2, P57): https without a fragment, and no address of a private network or of this
/// machine, unless the issuer itself is on loopback. A public name that resolves to a private address is stopped by its certificate.
fn may_name(issuer: &Url, url: &Url) -> bool {
    let plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none() && url.host().is_some();
    if is_loopback(issuer) {
        return plain && allowed(url).is_ok();
    }
    let private = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_private() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast(),
        Some(Host::Ipv6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.to_ipv4_mapped().is_some(),
        Some(Host::Domain(_)) | None => false,
    };
    // An intranet's issuer may well be an address itself.
    plain && url.scheme() == "https" && !is_loopback(url) && (!private || url.host() == issuer.host())
}

/// Endpoints are https, but for loopback (P01). The fetch holds this too; here it is told as what it is.
pub(super) fn allowed(url: &Url) -> Result<(), TokenError> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        _ => Err(TokenError::cannot("the endpoint is neither https nor on loopback")),
    }
}

fn cannot(why: &str) -> Missing {
    Missing::Failed(TokenError::cannot(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(issuer: &str, expected: [&str; 2]) {
        let found: Vec<String> = places(issuer, &issuer.parse().expect("a URL")).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{issuer}");
    }

    #[test]
    fn metadata_stands_at_two_places() {
        let openid = "https://example.com/.well-known/openid-configuration";
        let oauth = "https://example.com/.well-known/oauth-authorization-server";
        check("https://example.com", [openid, oauth]);
        check("https://example.com/", [openid, oauth]);
        let tail = ["https://example.com/issuer1/.well-known/openid-configuration", &format!("{oauth}/issuer1")];
        check("https://example.com/issuer1", tail);
        check("https://example.com/issuer1/", tail);
    }

    #[test]
    fn q68_an_issuer_has_further_names_only_where_they_are_declared() {
        let further = ["https://login.acme.test/*/v2.0".into(), "https://*.region.acme.test".into()];
        for (told, expected) in [
            ("https://login.acme.test/common/v2.0", true),
            ("https://login.acme.test/{tenantid}/v2.0", true),
            ("https://eu.region.acme.test", true),
            ("https://login.acme.test//v2.0", false),
            ("https://login.acme.test/a/b/v2.0", false),
            ("https://login.acme.test/a/v2.0/", false),
            ("https://a.b.region.acme.test", false),
            ("https://evil.test/.region.acme.test", false),
            ("https://evil.test?.region.acme.test", false),
            ("https://LOGIN.acme.test/a/v2.0", false),
        ] {
            assert_eq!(is_issuer(told, "https://login.acme.test/common/v2.0", &further), expected, "{told}");
        }
        assert!(!is_issuer("https://login.acme.test/{tenantid}/v2.0", "https://login.acme.test/common/v2.0", &[]));
    }

    #[test]
    fn an_issuer_names_public_https_endpoints_alone() {
        let check = |issuer: &str, url: &str, expected: bool| {
            assert_eq!(may_name(&issuer.parse().expect("a URL"), &url.parse().expect("a URL")), expected, "{issuer} {url}");
        };
        for url in ["https://example.com/token", "https://login.example.net:8443/t?x=1", "https://93.184.216.34/"] {
            check("https://example.com", url, true);
        }
        for url in [
            "http://example.com/token",
            "http://127.0.0.1/token",
            "https://127.0.0.1/token",
            "https://localhost/token",
            "https://[::1]/token",
            "https://[::ffff:169.254.169.254]/",
            "https://169.254.169.254/latest",
            "https://10.0.0.1/",
            "https://example.com/#x",
            "https://u:p@example.com/",
            "ftp://example.com/",
            "data:text/plain,x",
        ] {
            check("https://example.com", url, false);
        }
        check("https://10.0.0.7", "https://10.0.0.7/token", true);
        check("https://10.0.0.7", "https://10.0.0.8/token", false);
        check("http://127.0.0.1:7080", "http://localhost:7080/token", true);
        check("http://127.0.0.1:7080", "http://example.com/token", false);
    }
}
