//! What the fuzz targets may call of this room, which is not public otherwise. Built under `cfg(fuzzing)` alone.

use super::base_string::{self, Signed};

/// The signature base string (RFC 5849 §3.4.1).
pub fn base_string(request: &Signed<'_>, protocol: &[(&str, &str)]) -> String {
    base_string::of(request, protocol)
}
