//! Floor 3: the one caller of authorization servers: discovery, authorization requests, codes, refresh, device codes, minted tokens, revocation.
//!
//! The requests of RFC 6749 and 7009 are built and their answers parsed by the `oauth2` crate over our own `Fetch`; `form` builds those that it
//! does not have. `reply` stands between, so that providers' habits
//! do not reach its strict parser. The crate's parse error holds the raw body and is dropped unread. Kept between calls are
//! only documents that providers publish (`cache`). Deliberately absent: retries and state (the keeper's), and any provider's name in code.

mod authorize;
mod cache;
mod client;
mod device;
mod discovery;
mod error;
mod form;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod id_token;
mod jwks;
mod life;
mod lookup;
mod mint;
mod oauth1;
mod proofs;
mod refusal;
mod reply;
mod revoke;
mod shape;
mod values;
mod wire;

pub use authorize::{AuthorizeRequest, in_group, is_definitions, wants_nonce};
pub use client::{Grant, REFRESH_EXPIRES_AT, Revoked, TokenClient, Unexchanged, note_learnt, redirect_uri};
pub use device::{DeviceCode, DevicePoll};
pub use error::{Health, TokenError, Verdict};
pub use jwks::KeySets;
pub use oauth1::Pair;
pub use proofs::new_key;
pub use refusal::is_sign_of;
pub use reply::split_scopes;
pub use values::Values;

#[cfg(test)]
pub(crate) mod tests;
