//! Whether a token call may go: how many may run at once, a limit a provider, so that one that hangs does not hold up the others; and whether its
//! endpoint is out.

use super::outage::Outage;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Token calls in flight to one provider, callers waiting on them or not.
const CALLS_MAX: usize = 256;

/// Background refreshes in flight to one provider; fewer, so that calls that wait go first.
const AHEAD_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Gate {
    pub(super) calls: Arc<Semaphore>,
    pub(super) ahead: Arc<Semaphore>,
    pub(super) outage: Outage,
}

/// The gates by provider registration; as many as the config has ever named.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<Arc<str>, Arc<Gate>>>);

impl Gates {
    pub(super) fn of(&self, provider: &Arc<str>) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (calls, ahead) = (Arc::new(Semaphore::new(CALLS_MAX)), Arc::new(Semaphore::new(AHEAD_MAX)));
            Arc::new(Gate { calls, ahead, outage: Outage::default() })
        };
        Arc::clone(gates.entry(Arc::clone(provider)).or_insert_with(new))
    }
}
