//! The published keys by which end users' own tokens are verified (RFC 7517), fetched on the control plane and kept where workers read them.
//!
//! Only calls start fetches, and the start of a config. A set that is old serves on while a newer one is fetched, or cannot be.

use super::TokenError;
use super::cache::Missing;
use super::discovery;
use crate::base::clock::{Clock, UnixMillis};
use crate::identity::keyset::{FRESH_FOR, Fetched, Flight, KeySet, Published, Want};
use crate::upstream::Fetch;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Fetches key sets; clones share its connections' configuration.
#[derive(Debug, Clone)]
pub struct KeySets {
    fetch: Fetch,
    clock: Arc<dyn Clock>,
    /// Where fetches run, whichever thread asks for them.
    control_plane: Handle,
}

impl KeySets {
    pub fn new(fetch: Fetch, clock: Arc<dyn Clock>, control_plane: Handle) -> KeySets {
        KeySets { fetch, clock, control_plane }
    }

    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Begins a fetch in the background where the set is old. One comparison where it is not.
    pub fn freshen(&self, published: &Arc<Published>, fetched: &Fetched, now: UnixMillis) {
        if now.since(fetched.at) >= FRESH_FOR {
            let _flight = self.begin(published, Want::Fresh, now);
        }
    }

    /// Begins a fetch where there is no set yet.
    pub fn prepare(&self, published: &Arc<Published>) {
        let now = self.clock.now();
        if published.load(now).is_none() {
            let _flight = self.begin(published, Want::Fresh, now);
        }
    }

    /// Waits for a newer set, where one is being fetched or may be by now; the fetch has a limit of its own. Losing the wait is safe: the fetch
    /// is a task of its own and goes on.
    pub async fn newer(&self, published: &Arc<Published>, want: Want) {
        if let Some(mut flight) = self.begin(published, want, self.clock.now()) {
            // An error is its end: nothing is ever sent.
            let _ended = flight.changed().await;
        }
    }

    fn begin(&self, published: &Arc<Published>, want: Want, now: UnixMillis) -> Option<watch::Receiver<()>> {
        match published.want(want, now) {
            Flight::Paused => None,
            Flight::Under(flight) => Some(flight),
            Flight::Yours(ended, flight) => {
                let (own, published) = (self.clone(), Arc::clone(published));
                self.control_plane.spawn(async move {
                    own.fetch(&published).await;
                    drop(ended);
                });
                Some(flight)
            }
        }
    }

    async fn fetch(&self, published: &Published) {
        let host = published.url.host_str();
        let set = match discovery::raw_document(&self.fetch, &published.url).await {
            Ok(document) => KeySet::parse(&document).map_err(|error| error.to_string()),
            Err(Missing::Absent) => Err("the issuer answered that there is none".to_owned()),
            Err(Missing::Failed(TokenError { summary, .. })) => Err(summary),
        };
        match set {
            Ok(set) => {
                match set.is_empty() {
                    false => tracing::debug!(jwks.host = host, "fetched the keys of end users' tokens"),
                    true => tracing::warn!(jwks.host = host, "the published set holds no key that can verify end users' tokens"),
                }
                published.keep(set, self.clock.now());
            }
            Err(why) => {
                let now = self.clock.now();
                published.failed(now);
                let without = published.load(now).is_none();
                tracing::warn!(event = "end_user.keys_failing", jwks.host = host, why = %why.escape_debug(), without, "the keys of end users' tokens could not be fetched");
            }
        }
    }
}
