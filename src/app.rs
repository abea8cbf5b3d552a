//! Floor 7: the composition root, which puts the rooms together. It and `app/store.rs` alone name concrete stores.

pub mod store;

mod telling;

use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::{ConnectionKey, random_token};
use crate::base::secret::Secret;
use crate::config::{AdminToken, AdminTokens, ConfigErrors, KeySource, Live, Startup};
use crate::connect::Connect;
use crate::identity::Keys;
use crate::metrics::Metrics;
use crate::notices::Desk;
use crate::oauth::{KeySets, TokenClient};
use crate::proxy::{Proxy, Via};
use crate::server::admin::{self, Admin};
use crate::server::control::Entry;
use crate::server::listen::{self, Bound};
use crate::server::public::Public;
use crate::server::{BindError, Phase, Port, Tls, Which, Workers, control};
use crate::store::keyfile::{self, KeyFileError, Made};
use crate::store::seal::{BadKey, Sealer, SealingKey};
use crate::store::{Connection, Records, StoreError};
use crate::token::{Keeper, Registrations};
use crate::upstream::{Connector, Fetch, TlsRoots};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How configs read the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a run is made of besides its config; tests inject what they must.
#[derive(Clone)]
pub struct Settings {
    pub config: PathBuf,
    pub environment: Environment,
    pub clock: Arc<dyn Clock>,
    pub tls: Arc<TlsRoots>,
    /// By default one worker for each core this process may use.
    pub workers: Option<NonZeroUsize>,
}

impl Settings {
    pub fn new(config: PathBuf) -> Self {
        Settings {
            config,
            environment: Arc::new(|name| std::env::var(name).ok()),
            clock: Arc::new(SystemClock),
            tls: TlsRoots::system(),
            workers: None,
        }
    }
}

/// Why Attaché did not start, or ended with a failure.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    BadKey(#[from] BadKey),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// A running Attaché.
pub struct Running {
    /// The proxy listener's TCP addresses.
    pub proxy: Vec<SocketAddr>,
    /// Those of `listen.origins`, one after another.
    pub origins: Vec<SocketAddr>,
    /// The public listener's.
    pub public: Vec<SocketAddr>,
    /// The admin listener's.
    pub admin: Vec<SocketAddr>,
    pub health: Vec<SocketAddr>,
    pub live: Arc<Live>,
    pub records: Records,
    pub keeper: Arc<Keeper>,
    pub connect: Arc<Connect>,
    phase: watch::Sender<Phase>,
    workers: Workers,
    drain: Duration,
    /// What begins refreshes by itself; ends with this.
    background: JoinSet<()>,
}

/// Starts everything; ready to be called when this returns. Must run on the control runtime.
///
/// # Errors
/// With what is wrong and how to mend it: nothing is left half started.
pub async fn start(settings: Settings) -> Result<Running, AppError> {
    let environment = Arc::clone(&settings.environment);
    let live = Live::start(&settings.config, environment).map_err(AppError::Config)?;
    let snapshot = live.snapshot();
    let startup = &snapshot.startup;
    for warning in &snapshot.warnings {
        tracing::warn!("{warning}");
    }
    let copies = settings.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    // Ports first: a second Attaché is told of the taken port before it waits for the store's lock.
    let proxies = listen::bind(&startup.proxy, "proxy", copies)?;
    let origin_sets = startup.origins.iter().map(|origin| listen::bind(origin, "an origin", copies)).collect::<Result<Vec<_>, _>>()?;
    let publics = listen::bind(&startup.public, "public", 1)?;
    let admins = listen::bind(&startup.admin, "admin", 1)?;
    let healths = startup.health.as_ref().map(|health| listen::bind(health, "health", 1)).transpose()?.unwrap_or_default();
    let records = open_records(startup).await?;
    let tokens = admin_tokens(&startup.admin_tokens)?;

    let control_plane = tokio::runtime::Handle::current();
    let client = TokenClient::new(Fetch::new(Arc::clone(&settings.tls)), Arc::clone(&settings.clock));
    let (metrics, desk) = (Metrics::new(crate::log::dropped_lines), Desk::new(Arc::clone(&settings.clock)));
    let keeper = Keeper::telling(
        records.clone(),
        client.clone(),
        Arc::clone(&settings.clock),
        control_plane,
        metrics.events().clone(),
        Arc::clone(&desk),
    );
    if let Some(shared) = startup.store.shared() {
        keeper.set_max_stale(shared.max_stale);
    }
    telling::follow_log(&live);
    telling::start(&live, &desk, &records, Fetch::new(Arc::clone(&settings.tls)), &settings.clock, &metrics);
    let mut background = JoinSet::new();
    let registrations = registrations(&live);
    background.spawn(Arc::clone(&keeper).resolve(keeper.recover().await?, registrations.clone()));
    background.spawn(Arc::clone(&keeper).upkeep(registrations, live.subscribe()));
    let (phase, phases) = watch::channel(Phase::Serving);
    let addresses = |sets: &[Vec<Bound>]| -> Vec<SocketAddr> { sets.iter().take(1).flatten().filter_map(Bound::tcp).collect() };
    let (proxy, public, admin_at, health) = (addresses(&proxies), addresses(&publics), addresses(&admins), addresses(&healths));
    let origins: Vec<SocketAddr> = origin_sets.iter().flat_map(|sets| addresses(sets)).collect();
    let origin_urls: Vec<String> =
        startup.origins.iter().zip(&origin_sets).map(|(origin, sets)| listed(&addresses(sets), origin.tls)).collect();
    let proxies = workers_sets(&live, proxies, origin_sets);

    let workers = {
        let (live, keeper, metrics) = (Arc::clone(&live), Arc::clone(&keeper), Arc::clone(&metrics));
        let connector = Connector::new(&settings.tls);
        let key_sets = KeySets::new(Fetch::new(Arc::clone(&settings.tls)), Arc::clone(&settings.clock), tokio::runtime::Handle::current());
        prepare_key_sets(&live, key_sets.clone());
        Workers::start(proxies, &phases, move || {
            Proxy::new(Arc::clone(&live), Arc::clone(&keeper), key_sets.clone(), connector.clone(), metrics.worker())
        })?
    };
    let public_url = public_url(startup, &public);
    let connect = Connect::new(records.clone(), client, Arc::clone(&keeper), Arc::clone(&settings.clock), Arc::clone(&live), public_url);
    connect.resume_devices().await?;
    connect.spawn_sweep();
    if snapshot.metrics.enabled {
        keeper.spawn_census();
    }
    let pages = Public::new(Arc::clone(&connect));
    for bound in publics.into_iter().flatten() {
        let pages = Arc::clone(&pages);
        let entry = Entry::strangers(tls_of(&live, startup.public.tls, Which::Public), startup.public.per_address_max);
        control::serve(bound, entry, phases.clone(), move |peer, request| Arc::clone(&pages).handle(peer, request))?;
    }
    let admin = Admin::new(Arc::clone(&connect), metrics, tokens, admin_peers(startup), startup.admin.hosts.clone());
    for bound in admins.into_iter().flatten() {
        let admin = Arc::clone(&admin);
        let entry = Entry::known(tls_of(&live, startup.admin.tls, Which::Admin));
        control::serve(bound, entry, phases.clone(), move |peer, request| Arc::clone(&admin).handle(peer, request))?;
    }
    for bound in healths.into_iter().flatten() {
        let admin = Arc::clone(&admin);
        let entry = Entry::known(tls_of(&live, startup.health.as_ref().is_some_and(|health| health.tls), Which::Health));
        control::serve(bound, entry, phases.clone(), move |_, request| {
            let answer = admin::health_only(&admin, &request);
            async move { answer }
        })?;
    }
    Arc::clone(&live).spawn_watch(&tokio::runtime::Handle::current());
    let drain = startup.drain;
    tracing::info!(
        proxy = %listed(&proxy, startup.proxy.tls), origins = (!origin_urls.is_empty()).then(|| tracing::field::display(origin_urls.join(" "))), public = %connect.public_url(), admin = %listed(&admin_at, startup.admin.tls), routes = snapshot.route_list.len(), workers = copies, "attache is ready"
    );
    Ok(Running { proxy, origins, public, admin: admin_at, health, live, records, keeper, connect, phase, workers, drain, background })
}

/// The providers of whichever config is live when it is asked.
fn registrations(live: &Arc<Live>) -> impl Fn() -> Registrations + Send + Sync + Clone + 'static {
    let live = Arc::downgrade(live);
    move || live.upgrade().map(|live| live.snapshot().providers.clone()).unwrap_or_default()
}

/// Fetches the keys that each config names ahead of its calls.
fn prepare_key_sets(live: &Arc<Live>, key_sets: KeySets) {
    let (mut generations, live) = (live.subscribe(), Arc::downgrade(live));
    generations.mark_changed();
    tokio::spawn(async move {
        while generations.changed().await.is_ok() {
            let Some(live) = live.upgrade() else { return };
            if let Some(Keys::Published(published)) = live.snapshot().end_user.jwt.as_ref().map(|rules| &rules.keys) {
                key_sets.prepare(published);
            }
        }
    });
}

/// What each worker listens on: its sockets of the proxy listener and of every origin.
fn workers_sets(live: &Arc<Live>, proxies: Vec<Vec<Bound>>, origins: Vec<Vec<Vec<Bound>>>) -> Vec<Vec<Port>> {
    let snapshot = live.snapshot();
    let startup = &snapshot.startup;
    let with = |sets: Vec<Bound>, via: Via| {
        let (tls, which) = match via.origin {
            None => (startup.proxy.tls, Which::Proxy),
            Some(number) => (startup.origins.get(number).is_some_and(|origin| origin.tls), Which::Origin(number)),
        };
        sets.into_iter().map(move |bound| Port { bound, via, tls: tls_of(live, tls, which) })
    };
    let via = Via { placeholder: startup.proxy.placeholder, origin: None };
    let mut all: Vec<Vec<Port>> = proxies.into_iter().map(|set| with(set, via).collect()).collect();
    for (number, sets) in origins.into_iter().enumerate() {
        for (worker, set) in all.iter_mut().zip(sets) {
            worker.extend(with(set, Via { placeholder: None, origin: Some(number) }));
        }
    }
    all
}

fn tls_of(live: &Arc<Live>, is_on: bool, which: Which) -> Option<Tls> {
    is_on.then(|| Tls::new(live, which))
}

/// What browsers see. A port that the system chose is known only now.
fn public_url(startup: &Startup, public: &[SocketAddr]) -> url::Url {
    let mut url = startup.public_url.clone();
    if url.port() == Some(0)
        && let Some(address) = public.first()
    {
        // A URL with a host takes a port.
        let _ = url.set_port(Some(address.port()));
    }
    url
}

/// Who needs no admin token on a unix socket: root, whoever this process runs as, since both can read the token's file, and those that the
/// config names.
fn admin_peers(startup: &Startup) -> Vec<u32> {
    let own = rustix::process::geteuid().as_raw();
    startup.admin_uids.iter().copied().chain([0, own]).collect()
}

/// `tls`: whether that listener speaks it.
fn listed(addresses: &[SocketAddr], tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    addresses.iter().map(|address| format!("{scheme}://{address}")).collect::<Vec<_>>().join(" ")
}

impl Running {
    /// Finishes the calls under way, at most for `shutdown.drain`, then closes the store.
    ///
    /// # Errors
    /// When the store could not be closed whole.
    pub async fn stop(self) -> Result<(), AppError> {
        let drain = self.drain;
        self.stop_within(drain, std::future::pending()).await
    }

    async fn stop_within(mut self, drain: Duration, at_once: impl Future<Output = ()>) -> Result<(), AppError> {
        // What it has begun is waited for with the other refreshes.
        self.background.abort_all();
        self.phase.send_replace(Phase::Draining);
        let joined = tokio::task::spawn_blocking(move || self.workers.join());
        tokio::pin!(joined);
        // Losing the join is safe: it is waited for again below, once the workers were told to stop.
        let ended = tokio::select! {
            _ = &mut joined => true,
            () = tokio::time::sleep(drain) => false,
            () = at_once => false,
        };
        self.phase.send_replace(Phase::Stopping);
        if !ended {
            tracing::warn!("calls were cut off at the end of the drain");
            let _ = joined.await;
        }
        // A refresh under way may have spent its token already: it gets the time to put the new one on disk.
        self.connect.drain(Duration::from_secs(30)).await;
        self.keeper.drain(Duration::from_secs(30)).await;
        self.records.close().await?;
        tracing::info!("attache has stopped");
        Ok(())
    }
}

/// The store and everything that works on it, without a listener: what the command line uses while no server runs.
pub struct Offline {
    pub live: Arc<Live>,
    pub connect: Arc<Connect>,
    pub admin: Arc<Admin>,
    keeper: Arc<Keeper>,
    records: Records,
    /// Tells the listeners of [`Offline::serve_pages`] to end when it is dropped.
    phase: watch::Sender<Phase>,
}

/// Opens the store that the config names, in this process.
///
/// # Errors
/// When the config is wrong or the store cannot be had.
pub async fn offline(settings: Settings) -> Result<Offline, AppError> {
    let live = Live::start(&settings.config, Arc::clone(&settings.environment)).map_err(AppError::Config)?;
    let snapshot = live.snapshot();
    let records = open_records(&snapshot.startup).await?;
    let client = TokenClient::new(Fetch::new(Arc::clone(&settings.tls)), Arc::clone(&settings.clock));
    let keeper = Keeper::new(records.clone(), client.clone(), Arc::clone(&settings.clock), tokio::runtime::Handle::current());
    let public_url = snapshot.startup.public_url.clone();
    let connect = Connect::new(records.clone(), client, Arc::clone(&keeper), settings.clock, Arc::clone(&live), public_url);
    let admin = Admin::new(Arc::clone(&connect), Metrics::new(crate::log::dropped_lines), Vec::new(), Vec::new(), Vec::new());
    Ok(Offline { live, connect, admin, keeper, records, phase: watch::channel(Phase::Serving).0 })
}

impl Offline {
    /// Serves the public pages on the listener that the config names, for as long as this lives: a browser comes back to the redirect URI that
    /// is registered (RFC 8252 §7.3).
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn serve_pages(&self) -> Result<(), AppError> {
        let startup = &self.live.snapshot().startup;
        let pages = Public::new(Arc::clone(&self.connect));
        for bound in listen::bind(&startup.public, "public", 1)?.into_iter().flatten() {
            let pages = Arc::clone(&pages);
            let entry = Entry::strangers(tls_of(&self.live, startup.public.tls, Which::Public), startup.public.per_address_max);
            control::serve(bound, entry, self.phase.subscribe(), move |peer, request| Arc::clone(&pages).handle(peer, request))?;
        }
        Ok(())
    }

    /// Every connection with its tokens, page by page: for an export in clear, which the API does not have.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn connections(
        &self,
        provider: Option<&str>,
        after: Option<&ConnectionKey>,
        limit: usize,
    ) -> Result<Vec<Connection>, StoreError> {
        Ok(self.records.connections(provider, after, limit).await?.into_iter().map(|keyed| keyed.record).collect())
    }

    /// Waits for what is under way and lets go of the store.
    ///
    /// # Errors
    /// When it could not be closed whole.
    pub async fn close(self) -> Result<(), AppError> {
        self.phase.send_replace(Phase::Stopping);
        self.connect.drain(Duration::from_secs(30)).await;
        self.keeper.drain(Duration::from_secs(30)).await;
        Ok(self.records.close().await?)
    }
}

/// Starts, and stops at SIGTERM or SIGINT: the first drains, the second ends at once.
///
/// # Errors
/// As [`start`] and [`Running::stop`].
pub async fn serve(settings: Settings) -> Result<(), AppError> {
    let running = start(settings).await?;
    until_signal(running).await
}

/// Serves a running Attaché until a signal ends it.
///
/// # Errors
/// As [`Running::stop`].
pub async fn until_signal(running: Running) -> Result<(), AppError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Losing either arm is safe: the drain begins with both.
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tracing::info!("draining; a second signal stops at once");
    let drain = running.drain;
    let again = async move {
        // As above.
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    running.stop_within(drain, again).await
}

/// Opens the store that the config names, with its keys; also for the command line while no server runs.
///
/// # Errors
/// When it is open elsewhere, damaged, or sealed with another key.
pub async fn open_records(startup: &Startup) -> Result<Records, AppError> {
    let sealer = store::Spec::of(startup).sealer_or_make()?;
    let records = Records::new(store::open(&startup.store).await?, sealer);
    // Every record is opened once, so that a store sealed with another key refuses at the start rather than at each call.
    records.check().await.map_err(with_way_out)?;
    Ok(records)
}

/// One record refuses the whole start, so that it is not lost in silence; this says what can be done about it.
fn with_way_out(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged(why) => StoreError::Damaged(format!(
            "{why}. `attache store check` tells which records those are; a damaged one is left out by `attache store repair`, or restored with `attache store restore`"
        )),
        other => other,
    }
}

fn sealer(keys: &KeySource, store_exists: bool) -> Result<Sealer, AppError> {
    let keys = match keys {
        KeySource::Given(keys) => keys.iter().map(|key| SealingKey::from_base64(key.expose())).collect::<Result<Vec<_>, _>>()?,
        KeySource::File(path) => {
            let (key, made) = keyfile::load_or_make_key(path, store_exists)?;
            tell(made, path, "made a new encryption key: back it up, apart from the store; without it the store cannot be read");
            vec![key]
        }
    };
    Ok(Sealer::new(&keys))
}

fn admin_tokens(source: &AdminTokens) -> Result<Vec<AdminToken>, AppError> {
    match source {
        AdminTokens::Given(tokens) => Ok(tokens.clone()),
        AdminTokens::File(path) => {
            let (token, made) = keyfile::load_or_make(path, || Secret::new(random_token()), true)?;
            tell(made, path, "made a new admin token");
            Ok(vec![admin::whole_token(token)])
        }
    }
}

fn tell(made: Made, path: &std::path::Path, news: &str) {
    match made {
        Made::Now => tracing::warn!(path = %path.display(), "{news}"),
        Made::Before { warning: Some(warning) } => tracing::warn!(path = %path.display(), "{warning}"),
        Made::Before { warning: None } => {}
    }
}
