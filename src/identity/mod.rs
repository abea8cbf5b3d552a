//! Floor 1: who is the end user and who is the caller, read from a request's headers by the operator's rules.

pub mod caller;
pub mod end_user;
pub mod jwt;
pub mod keyset;

pub use caller::{Behind, Caller, CallerRefused, Callers, KEY_HEADER};
pub use end_user::{EndUser, EndUserRules, IdentityError, Tokens, check_name};
pub use jwt::{JwtRules, Keys, Unproved};
pub use keyset::{KeySet, Published};
