//! What the fuzz targets may call of this room, which is not public otherwise. Built under `cfg(fuzzing)`, and with the tests, so that a change that breaks a target is seen at once.

use super::base_string::{self, Signed};

/// The signature base string (RFC 5849 §3.4.1).
pub fn base_string(request: &Signed<'_>, protocol: &[(&str, &str)]) -> String {
    base_string::of(request, protocol)
}
