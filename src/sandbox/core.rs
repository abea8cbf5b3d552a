//! What all endpoints of one sandbox share: its settings, state, clock and counters.

use crate::base::clock::{Clock, UnixMillis};
use crate::sandbox::authorize::Tickets;
use crate::sandbox::device::Devices;
use crate::sandbox::grants::Grants;
use crate::sandbox::library::Library;
use crate::sandbox::oauth1;
use crate::sandbox::settings::{FailToken, Settings};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often things happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Every POST to the token endpoint, also those that failed.
    pub token_posts: u64,
    pub authorization_code_posts: u64,
    pub refresh_posts: u64,
    pub client_credentials_posts: u64,
    pub device_code_posts: u64,
    /// Refreshes that gave new tokens.
    pub refreshes: u64,
    /// Those among them by the last refresh token instead of the current one, within the leeway.
    pub late_refreshes: u64,
    /// Grants that a reused refresh token has ended.
    pub reuse_detections: u64,
    pub revocations: u64,
    pub authorizations: u64,
    pub api_calls: u64,
    /// API calls answered 401.
    pub api_rejected: u64,
}

#[derive(Default)]
pub(super) struct Counting {
    pub(super) token_posts: AtomicU64,
    pub(super) codes: AtomicU64,
    pub(super) refresh_posts: AtomicU64,
    pub(super) client_credentials: AtomicU64,
    pub(super) device_codes: AtomicU64,
    pub(super) refreshes: AtomicU64,
    pub(super) revocations: AtomicU64,
    pub(super) authorizations: AtomicU64,
    pub(super) api_calls: AtomicU64,
    pub(super) api_rejected: AtomicU64,
}

pub(super) struct Core {
    /// The issuer identifier (RFC 8414 §2), which is where it listens.
    pub(super) issuer: String,
    pub(super) counters: Counting,
    pub(super) library: Library,
    clock: Arc<dyn Clock>,
    settings: ArcSwap<Settings>,
    /// Held while the settings are replaced, so that two changes at once are both kept.
    changing: Mutex<()>,
    grants: Mutex<Grants>,
    tickets: Mutex<Tickets>,
    devices: Mutex<Devices>,
    oauth1: Mutex<oauth1::State>,
}

impl Core {
    pub(super) fn new(issuer: String, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Core {
            issuer,
            counters: Counting::default(),
            library: Library::default(),
            clock,
            settings: ArcSwap::from_pointee(settings),
            changing: Mutex::default(),
            grants: Mutex::default(),
            tickets: Mutex::default(),
            devices: Mutex::default(),
            oauth1: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Changes the settings; calls already under way keep the ones they began with.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        let _alone = lock(&self.changing);
        let mut settings = Settings::clone(&self.settings.load());
        let told = change(&mut settings);
        self.settings.store(Arc::new(settings));
        told
    }

    pub(super) fn grants(&self) -> MutexGuard<'_, Grants> {
        lock(&self.grants)
    }

    pub(super) fn tickets(&self) -> MutexGuard<'_, Tickets> {
        lock(&self.tickets)
    }

    pub(super) fn devices(&self) -> MutexGuard<'_, Devices> {
        lock(&self.devices)
    }

    pub(super) fn oauth1(&self) -> MutexGuard<'_, oauth1::State> {
        lock(&self.oauth1)
    }

    /// The canned answer that the token endpoint must give now, if any.
    pub(super) fn take_token_failure(&self) -> Option<FailToken> {
        self.settings.load().fail_token.as_ref()?;
        self.change(|settings| {
            let failure = settings.fail_token.clone()?;
            let left = failure.times.map(|times| times.saturating_sub(1));
            match &mut settings.fail_token {
                Some(kept) if left != Some(0) => kept.times = left,
                kept => *kept = None,
            }
            Some(failure)
        })
    }

    /// Whether this token answer must be lost.
    pub(super) fn take_lost_answer(&self) -> bool {
        self.settings.load().lose_token_answers > 0 && self.change(|settings| take_one(&mut settings.lose_token_answers))
    }

    /// Whether the API must answer 401 to this call whatever token it carries.
    pub(super) fn take_rejection(&self) -> bool {
        let settings = self.settings.load();
        settings.api_reject_all || (settings.api_reject_next > 0 && self.change(|settings| take_one(&mut settings.api_reject_next)))
    }

    pub(super) fn count(&self) -> Counters {
        let counting = &self.counters;
        let (late_refreshes, reuse_detections) = {
            let grants = self.grants();
            (grants.late_refreshes(), grants.reuse_detections())
        };
        Counters {
            token_posts: counting.token_posts.load(Relaxed),
            authorization_code_posts: counting.codes.load(Relaxed),
            refresh_posts: counting.refresh_posts.load(Relaxed),
            client_credentials_posts: counting.client_credentials.load(Relaxed),
            device_code_posts: counting.device_codes.load(Relaxed),
            refreshes: counting.refreshes.load(Relaxed),
            late_refreshes,
            reuse_detections,
            revocations: counting.revocations.load(Relaxed),
            authorizations: counting.authorizations.load(Relaxed),
            api_calls: counting.api_calls.load(Relaxed),
            api_rejected: counting.api_rejected.load(Relaxed),
        }
    }
}

fn take_one(left: &mut u64) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

/// A panic elsewhere leaves this state whole enough for a sandbox: no change here spans more than one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
