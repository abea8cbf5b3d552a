//! The device grant (RFC 8628): a code for the end user to type elsewhere, and the poll for what became of it.

use super::discovery::Endpoint;
use super::form::{Pairs, put, put_resources};
use super::reply::{self, Members};
use super::{Grant, TokenClient, TokenError};
use crate::base::secret::Secret;
use crate::provider::Registration;
use std::time::Duration;
use url::Url;

/// RFC 8628 §3.2, where the provider names none.
const INTERVAL: Duration = Duration::from_secs(5);

/// A longer wait between polls would outlast the code.
const INTERVAL_MAX: Duration = Duration::from_secs(300);

/// The life of a code whose answer names none, though it must: short, so that nobody waits for a dead one.
const EXPIRES_IN_UNTOLD: Duration = Duration::from_secs(300);
const EXPIRES_IN_MAX: Duration = Duration::from_secs(24 * 3600);

const CODE_BYTES_MAX: usize = 4096;

/// RFC 8628 §3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    pub device_code: Secret,
    /// To be shown as text (§5.1).
    pub user_code: String,
    pub verification_uri: String,
    pub verification_uri_complete: Option<String>,
    pub expires_in: Duration,
    pub interval: Duration,
}

/// What one poll brought (RFC 8628 §3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePoll {
    Granted(Grant),
    Pending,
    /// Five seconds more between polls from now on.
    SlowDown,
    Denied,
    Expired,
}

impl TokenClient {
    /// RFC 8628 §3.1.
    ///
    /// # Errors
    /// When the provider has no such endpoint or gives no code.
    pub async fn device_authorize(&self, reg: &Registration, scopes: &[String]) -> Result<DeviceCode, TokenError> {
        let url = self.endpoint(reg, Endpoint::DeviceAuthorization).await?;
        let url = url.ok_or_else(|| TokenError::cannot("the provider has no device authorization endpoint"))?;
        let mut pairs = Pairs::new();
        // Required in the body, whatever proves the client besides (RFC 8628 §3.1).
        put(&mut pairs, "client_id", &reg.client_id);
        if !scopes.is_empty() {
            put(&mut pairs, "scope", &scopes.join(&reg.scope_separator));
        }
        put_resources(&mut pairs, reg);
        let response = self.post(reg, &url, pairs).await?;
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        let members = reply::members(status, response.body()).map_err(|fault| fault.into_error(status, retry_after))?;
        code(&members).map_err(|why| TokenError::unusable(status, why, retry_after))
    }

    /// RFC 8628 §3.4. An id token in the answer is not read: no nonce binds one to this request.
    ///
    /// # Errors
    /// When the poll itself failed; a later one may succeed unless the verdict says otherwise.
    pub async fn device_poll(&self, reg: &Registration, device_code: &Secret) -> Result<DevicePoll, TokenError> {
        let mut pairs = Pairs::new();
        put(&mut pairs, "grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        put(&mut pairs, "device_code", device_code.expose());
        put(&mut pairs, "client_id", &reg.client_id);
        put_resources(&mut pairs, reg);
        match self.grant_or_code(reg, pairs).await {
            Ok(grant) => Ok(DevicePoll::Granted(grant)),
            Err((code, error)) => match code {
                Some("authorization_pending") => Ok(DevicePoll::Pending),
                Some("slow_down") => Ok(DevicePoll::SlowDown),
                // The second is Microsoft's word for it.
                Some("access_denied" | "authorization_declined") => Ok(DevicePoll::Denied),
                Some("expired_token") => Ok(DevicePoll::Expired),
                _ => Err(error),
            },
        }
    }
}

fn code(members: &Members) -> Result<DeviceCode, &'static str> {
    let text = |name: &str| {
        let text = members.get(name).and_then(serde_json::Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty() && text.len() <= CODE_BYTES_MAX && !text.chars().any(char::is_control)).map(str::to_owned)
    };
    // It becomes a link on a page: nothing but a web address.
    let link = |name: &str| text(name).filter(|text| text.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "https" | "http")));
    let span = |name: &str| members.get(name).and_then(reply::seconds).map(Duration::from_secs);
    Ok(DeviceCode {
        device_code: text("device_code").ok_or("no device code")?.into(),
        user_code: text("user_code").ok_or("no user code")?,
        // `verification_url` is Google's spelling.
        verification_uri: link("verification_uri").or_else(|| link("verification_url")).ok_or("no verification_uri")?,
        verification_uri_complete: link("verification_uri_complete"),
        expires_in: span("expires_in").unwrap_or(EXPIRES_IN_UNTOLD).min(EXPIRES_IN_MAX),
        interval: span("interval").unwrap_or(INTERVAL).min(INTERVAL_MAX),
    })
}
