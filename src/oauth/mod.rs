//! Floor 3: the one caller of token endpoints: exchange, refresh, client credentials, revocation.
//!
//! Requests are built and answers parsed by the `oauth2` crate over our own `Fetch`; `reply` stands between, so that providers' habits
//! do not reach its strict parser. The crate's parse error holds the raw body and is dropped unread. Deliberately absent: retries and state
//! (the keeper's), and any provider's name in code.

mod authorize;
mod client;
mod device;
mod error;
mod mint;
mod reply;

pub use authorize::AuthorizeRequest;
pub use client::{Grant, Revoked, TokenClient};
pub use device::{DeviceCode, DevicePoll};
pub use error::{TokenError, Verdict};

#[cfg(test)]
pub(crate) mod tests;
