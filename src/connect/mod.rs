//! Floor 5: everything between "this end user has no connection" and "the next call just works", and what is done with a connection afterwards.
//!
//! [`Connect`] is the protocol without HTTP: connect sessions and the browser's trip to the provider ([`begin`], [`callback`]), the app's last word
//! ([`complete`]), the device flow ([`device`]), and connections as operators handle them ([`connections`]). `server` puts pages and an API on it.
//!
//! Invariants: a session goes forward only, each step by compare-and-swap, so that a code is spent once and a callback taken once on all
//! replicas together; a connection and the end of its session are one write; no text of a provider's reaches a page or a log. Deliberately
//! absent: any state in memory (a restart between two steps loses nothing), and the implicit and password grants (RFC 9700 §2.1.2, §2.4).

mod answer;
pub mod begin;
mod book;
pub mod callback;
mod codec;
pub mod complete;
pub mod connections;
pub mod create;
pub mod device;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod grant;
mod inputs;
pub mod links;
mod oauth1;
pub mod session;
mod sweep;

pub use answer::Params;
pub use begin::{Begun, Cookies, Offered, View};
pub use callback::{Arrival, Landing};
pub use complete::CompleteError;
pub use connections::{Filter, ListError, Page, Refreshed, Revocation, Written};
pub use create::{Created, NewSession};
pub use device::{DeviceCreated, NewDevice};
pub use session::{Completes, Outcome};

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::config::{Live, Snapshot};
use crate::oauth::TokenClient;
pub use crate::oauth::redirect_uri;
use crate::provider::{Asks, Pkce, Registration};
use crate::store::{Records, StoreError};
use crate::token::Keeper;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use url::Url;

/// The connect flow and the handling of connections. One a process, shared.
pub struct Connect {
    pub(crate) records: Records,
    pub(crate) client: TokenClient,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) live: Arc<Live>,
    /// What browsers see; the only truth about scheme, host and path prefix.
    public_url: Url,
    control: Handle,
    /// How much work is under way that must not be cut off.
    working: watch::Sender<usize>,
}

/// Why a browser is not let on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Unknown, expired or used; which of them is nobody's business.
    #[error("the link is unknown, has expired or was used")]
    Gone,
    #[error("another browser began with this link")]
    OtherBrowser,
    /// What the browser sent does not fit what it should answer.
    #[error("the request is refused: {0}")]
    Refused(&'static str),
    /// What was typed on the page is not whole; it may be typed again.
    #[error("the form is not whole: {0}")]
    Form(Cow<'static, str>),
    #[error("the provider cannot be reached")]
    ProviderUnreachable,
    #[error("the store is unavailable")]
    Unavailable,
}

/// Why something that an operator or the app's back end asked for is not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// In words for whoever asked.
    #[error("{0}")]
    Invalid(String),
    #[error("there is no such thing")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider did not do its part.
    #[error("{0}")]
    Provider(String),
}

impl Connect {
    pub fn new(
        records: Records,
        client: TokenClient,
        keeper: Arc<Keeper>,
        clock: Arc<dyn Clock>,
        live: Arc<Live>,
        public_url: Url,
    ) -> Arc<Self> {
        client.set_public_url(&public_url);
        Arc::new(Connect { records, client, keeper, clock, live, public_url, control: Handle::current(), working: watch::Sender::new(0) })
    }

    /// What browsers see.
    pub fn public_url(&self) -> &Url {
        &self.public_url
    }

    /// A URL of the public listener; `path` begins with a slash.
    pub fn public(&self, path: &str) -> String {
        format!("{}{path}", self.public_url.as_str().trim_end_matches('/'))
    }

    /// The exact redirect URI to register at the provider, and the only one that is ever sent.
    pub fn redirect_uri(&self, provider: &str) -> String {
        redirect_uri(&self.public_url, provider)
    }

    /// Runs work to its end, whoever waits for it: a browser that closes its tab while its code is being spent must not lose the grant. `None` when
    /// the work panicked or its runtime went down.
    pub async fn to_its_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let under_way = self.under_way();
        let done = self.control.spawn(async move {
            let done = work.await;
            drop(under_way);
            done
        });
        done.await.ok()
    }

    /// Counts as work under way until it is dropped.
    fn under_way(&self) -> UnderWay {
        self.working.send_modify(|count| *count += 1);
        UnderWay(self.working.clone())
    }

    /// Waits for the work under way, so that no code is spent for nothing at shutdown.
    pub async fn drain(&self, within: Duration) {
        let mut working = self.working.subscribe();
        if tokio::time::timeout(within, working.wait_for(|count| *count == 0)).await.is_err() {
            tracing::warn!("end users were still connecting at the end of the drain: they must start again");
        }
    }

    /// Whether no end user's step of connecting is under way, and no token call of the keeper's.
    pub fn is_idle(&self) -> bool {
        *self.working.borrow() == 0 && self.keeper.is_idle()
    }

    /// The registration, if it is on.
    fn registration(&self, snapshot: &Snapshot, id: &str) -> Option<Arc<Registration>> {
        snapshot.providers.get(id).filter(|registration| registration.off.is_none()).cloned()
    }
}

/// Some work under way; also a panic ends it.
struct UnderWay(watch::Sender<usize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Whether an end user can connect to it by a page: those whose tokens nobody grants cannot.
pub fn is_connectable(registration: &Registration) -> bool {
    let consents = match &registration.oauth1 {
        Some(oauth1) => oauth1.request_token_url.is_some() && registration.authorize_url.is_some() && registration.token_url.is_some(),
        None => registration.mint.is_none() && (registration.authorize_url.is_some() || registration.issuer.is_some()),
    };
    registration.off.is_none() && (consents && !registration.client_id.is_empty() || registration.asks != Asks::Consent)
}

/// The challenge of a verifier (RFC 7636 §4.2), as the provider reads it.
fn challenge(pkce: Pkce, verifier: &Secret) -> String {
    let hash = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
    match pkce {
        Pkce::S256 | Pkce::None => URL_SAFE_NO_PAD.encode(hash),
        Pkce::S256Hex => hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        Pkce::Plain => verifier.expose().to_owned(),
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("public_url", &self.public_url.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(Pkce::S256, &verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(challenge(Pkce::S256Hex, &verifier), "13d31e961a1ad8ec2f16b10c4c982e0876a878ad6df144566ee1894acb70f9c3");
        assert_eq!(challenge(Pkce::Plain, &verifier), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn redirect_uris_stand_below_the_public_url() {
        for (public_url, expected) in [
            ("http://localhost:7071", "http://localhost:7071/oauth/callback/google"),
            ("https://app.example.com/attache", "https://app.example.com/attache/oauth/callback/google"),
            ("https://app.example.com/attache/", "https://app.example.com/attache/oauth/callback/google"),
        ] {
            assert_eq!(redirect_uri(&public_url.parse().expect("a URL"), "google"), expected);
        }
    }
}
