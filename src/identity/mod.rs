//! Floor 1: who is the end user and who is the caller, read from a request's headers by the operator's rules.

pub mod caller;
pub mod end_user;

pub use caller::{Behind, Caller, CallerRefused, Callers, KEY_HEADER};
pub use end_user::{EndUser, EndUserRules, IdentityError, check_name};
