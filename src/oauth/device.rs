//! The device grant (RFC 8628): a code for the end user to type elsewhere, and the poll for what became of it.

use super::discovery::Endpoint;
use super::form::{Pairs, put, put_resources};
use super::life::seconds;
use super::refusal;
use super::reply::{self, Members};
use super::shape::Call;
use super::values::{Values, text_of};
use super::{Grant, TokenClient, TokenError, client};
use crate::base::secret::Secret;
use crate::provider::{Registration, Sign};
use serde_json::Value;
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
    Granted(Box<Grant>),
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
    pub async fn device_authorize(&self, reg: &Registration, scopes: &[String], values: Values<'_>) -> Result<DeviceCode, TokenError> {
        let call = Call { reg, shape: &reg.dialect.calls.device, values, redirect_uri: None };
        let mut pairs = Pairs::new();
        // Required in the body, whatever proves the client besides (RFC 8628 §3.1).
        put(&mut pairs, "client_id", &reg.client_id);
        if !scopes.is_empty() {
            put(&mut pairs, "scope", &scopes.join(&reg.scope_separator));
        }
        put_resources(&mut pairs, reg);
        let url = match call.own_url(&pairs)? {
            Some(url) => Some(url),
            None => self.endpoint(reg, Endpoint::DeviceAuthorization, values).await?,
        };
        let url = url.ok_or_else(|| TokenError::cannot("the provider has no device authorization endpoint"))?;
        let response = self.post(call, &url, pairs).await?;
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        let members = reply::members(status, response.body(), reg).map_err(|fault| fault.into_error(status, retry_after))?;
        code(members, reg).map_err(|why| TokenError::unusable(status, why, retry_after))
    }

    /// RFC 8628 §3.4. An id token in the answer is not read: no nonce binds one to this request.
    ///
    /// # Errors
    /// When the poll itself failed; a later one may succeed unless the verdict says otherwise.
    pub async fn device_poll(&self, reg: &Registration, device_code: &Secret, values: Values<'_>) -> Result<DevicePoll, TokenError> {
        let mut pairs = Pairs::new();
        put(&mut pairs, "grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        put(&mut pairs, "device_code", device_code.expose());
        put(&mut pairs, "client_id", &reg.client_id);
        put_resources(&mut pairs, reg);
        for (name, value) in &reg.token_params {
            put(&mut pairs, name, value);
        }
        let call = Call { reg, shape: &reg.dialect.calls.poll, values, redirect_uri: None };
        let response = self.answer_to(call, pairs).await?;
        let refused = match self.grant_in(call, &response) {
            Ok(grant) => return Ok(DevicePoll::Granted(Box::new(client::renewable(reg, grant)))),
            Err(refused) => refused,
        };
        if let Some(told) = by_definition(reg, response.status().as_u16(), response.body()) {
            return Ok(told);
        }
        match refused {
            (Some("authorization_pending"), _) => Ok(DevicePoll::Pending),
            (Some("slow_down"), _) => Ok(DevicePoll::SlowDown),
            // The second is Microsoft's word for it.
            (Some("access_denied" | "authorization_declined"), _) => Ok(DevicePoll::Denied),
            (Some("expired_token"), _) => Ok(DevicePoll::Expired),
            (_, error) => Err(error),
        }
    }
}

/// What the definition's signs say of a poll that brought no grant (Q67): some providers answer with bare statuses.
fn by_definition(reg: &Registration, status: u16, body: &[u8]) -> Option<DevicePoll> {
    let rules = &reg.dialect.device;
    let whole: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = refusal::code(&whole, reg).flatten();
    let fits = |signs: &[Sign]| signs.iter().any(|sign| refusal::fits(sign, status, code.as_deref(), &whole, body));
    // A slow_down is a pending poll too, and says more.
    if fits(&rules.slow_down) {
        Some(DevicePoll::SlowDown)
    } else if fits(&rules.pending) {
        Some(DevicePoll::Pending)
    } else if fits(&rules.denied) {
        Some(DevicePoll::Denied)
    } else if fits(&rules.expired) {
        Some(DevicePoll::Expired)
    } else {
        None
    }
}

fn code(members: Members, reg: &Registration) -> Result<DeviceCode, &'static str> {
    let whole = Value::Object(members);
    let member = |name: &str| match reg.dialect.device.rename.iter().find(|(standard, _)| **standard == *name) {
        Some((_, path)) => path.get(&whole),
        None => whole.get(name),
    };
    let text = |name: &str| {
        let text = member(name).and_then(text_of)?;
        let text = text.trim();
        let fits = !text.is_empty() && text.len() <= CODE_BYTES_MAX && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    };
    // It becomes a link on a page: nothing but a web address.
    let link = |name: &str| text(name).filter(|text| text.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "https" | "http")));
    let span = |name: &str| member(name).and_then(seconds).map(Duration::from_secs);
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
