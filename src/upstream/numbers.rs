//! Numbers for what pools must tell apart by content: equal contents have one number, so that a reload keeps their connections.

use crate::base::digest::sha256;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The numbers given so far, from 1 on; 0 is nobody's. As many as configs have ever named.
pub(super) struct Numbers(LazyLock<Mutex<HashMap<[u8; 32], u32>>>);

impl Numbers {
    pub(super) const fn new() -> Self {
        Numbers(LazyLock::new(Mutex::default))
    }

    pub(super) fn of(&self, content: &[u8]) -> u32 {
        // Taken at config load alone.
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX);
        *numbers.entry(sha256(content)).or_insert(next)
    }
}
