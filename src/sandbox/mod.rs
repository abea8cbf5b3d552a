//! A provider of its own for development and tests: a strict authorization server and a photo API on loopback, all in memory.
//!
//! It uses base alone. [`Sandbox::start`] binds and serves until [`Sandbox::stop`] or the drop of the handle. Deliberately absent: any storage,
//! TLS and a way to listen off loopback, since it lets anybody in as anybody.

mod api;
mod authorize;
mod control;
mod core;
mod device;
mod form;
mod grants;
mod library;
mod oauth1;
mod pages;
mod photos;
mod picture;
mod probes;
mod ranges;
mod refused;
mod respond;
mod serve;
mod settings;
mod token;

pub use self::core::Counters;
pub use settings::{Client, FailToken, Settings};

use crate::base::clock::{Clock, UnixMillis};
use crate::base::secret::Secret;
use crate::sandbox::core::Core;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a stop waits for calls under way.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Tokens made without a browser.
#[derive(Debug, Clone)]
pub struct IssuedGrant {
    pub access_token: Secret,
    pub refresh_token: Option<Secret>,
    pub expires_at: UnixMillis,
    pub scopes: Vec<String>,
}

/// A running sandbox. Dropping it stops it at once.
pub struct Sandbox {
    /// Where it listens, with the port that the system chose if none was given.
    pub addr: SocketAddr,
    core: Arc<Core>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Sandbox {
    /// Binds and begins to serve on the current runtime.
    pub async fn start(settings: Settings, clock: Arc<dyn Clock>) -> io::Result<Sandbox> {
        if !settings.bind.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the sandbox listens on loopback only, since it lets anybody in as anybody",
            ));
        }
        let listener = TcpListener::bind(settings.bind).await?;
        let addr = listener.local_addr()?;
        let core = Arc::new(Core::new(format!("http://{addr}"), settings, clock));
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve::accept(listener, core.clone(), stopped));
        Ok(Sandbox { addr, core, stop, serving })
    }

    /// The issuer identifier, which is also the base of every URL here: `http://127.0.0.1:PORT`.
    pub fn issuer(&self) -> &str {
        &self.core.issuer
    }

    /// Tokens for `user` at the first client, as if the user had just allowed these scopes; `None` if no client is registered.
    pub fn issue_grant(&self, user: &str, scopes: &[&str]) -> Option<IssuedGrant> {
        issue(&self.core, None, user, Some(scopes))
    }

    /// The same at another client.
    pub fn issue_grant_for(&self, client_id: &str, user: &str, scopes: &[&str]) -> Option<IssuedGrant> {
        issue(&self.core, Some(client_id), user, Some(scopes))
    }

    /// An OAuth 1.0a token and its secret for `user` at the first client, as if the user had just allowed it.
    pub fn issue_oauth1(&self, user: &str) -> Option<(Secret, Secret)> {
        let settings = self.core.settings();
        let client = settings.clients.first()?;
        Some(self.core.oauth1().issue(&client.id, user))
    }

    /// The ids of a user's photos, in the order of the list.
    pub fn photo_ids(&self, user: &str) -> Vec<String> {
        self.core.library.photos(user).into_iter().map(|photo| photo.id).collect()
    }

    pub fn counters(&self) -> Counters {
        self.core.count()
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.core.settings()
    }

    /// Changes the settings while it runs; a change of `bind` has no effect.
    pub fn change<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        self.core.change(change)
    }

    /// Ends every grant of `user`, as if they had been revoked at the provider; says how many that were.
    pub fn revoke_user(&self, user: &str) -> usize {
        self.core.oauth1().end_user(user);
        self.core.grants().end_user(user)
    }

    /// Kills every access token that is live now; refresh tokens stay good.
    pub fn expire_access_tokens(&self) {
        self.core.grants().expire_access_tokens();
    }

    /// Waits until it ends, which it does not do by itself.
    pub async fn join(&mut self) {
        // A panic of the accept loop ends the sandbox like a stop does; the panic itself is on standard error.
        let _ = (&mut self.serving).await;
    }

    /// Takes no more connections, lets calls under way end within five seconds, and is gone.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        self.join().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn issue(core: &Core, client_id: Option<&str>, user: &str, scopes: Option<&[&str]>) -> Option<IssuedGrant> {
    let settings = core.settings();
    let client = match client_id {
        Some(id) => settings.client(id),
        None => settings.clients.first(),
    }?;
    let scopes = scopes.map_or_else(|| settings.scopes.clone(), |scopes| scopes.iter().map(|scope| (*scope).to_owned()).collect());
    let issued = core.grants().issue(&settings, &client.id, user, &scopes, core.now());
    let (access_token, refresh_token, expires_at) = (issued.access_token, issued.refresh_token, issued.expires_at);
    Some(IssuedGrant { access_token, refresh_token, expires_at, scopes })
}

#[cfg(test)]
mod tests;
