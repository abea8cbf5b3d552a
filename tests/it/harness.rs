//! A whole Attaché in this process, beside a sandbox provider, on ports that the system chose and on one clock that the test moves.

use crate::upstream::Upstream;
use crate::wire::{self, Answer, Body, empty};
use attache::app::{self, Running, Settings};
use attache::base::clock::{Clock, ManualClock, UnixMillis};
use attache::base::ids::ConnectionKey;
use attache::config::Live;
use attache::provider::Registration;
use attache::sandbox::{self, IssuedGrant, Sandbox};
use attache::store::{Connection, Expect, wire::parse_import};
use attache::upstream::TlsRoots;
use http::Request;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub const MEGAN: &str = "megan@personalemail.com";
pub const ALEX: &str = "alex@personalemail.com";
pub const ADMIN_TOKEN: &str = "admin-token-of-the-tests";

/// How long the sandbox's access tokens live.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// 2026-01-01T00:00:00Z.
pub const START: UnixMillis = UnixMillis(1_767_225_600_000);

/// The routes that most tests need. `SANDBOX` becomes the sandbox's address.
const ROUTES: &str = "
  - name: list-photos
    match: GET /photos
    provider: sandbox
    upstream: http://SANDBOX/v1/photos
  - name: photo
    match: GET /photos/{id}
    provider: sandbox
    upstream: http://SANDBOX/v1/photos/{id}/content
  - name: api
    match: /api/{*rest}
    provider: sandbox
    upstream: http://SANDBOX/v1/{rest}
";

/// What a world is made of, before it starts.
pub struct Plan {
    listen: String,
    top: String,
    provider: String,
    providers: String,
    token_hosts: Vec<String>,
    token_url: String,
    routes: String,
    store: String,
    admin: String,
    tls: Arc<TlsRoots>,
    workers: usize,
}

/// A running Attaché and its sandbox.
pub struct World {
    pub folder: TempDir,
    pub sandbox: Sandbox,
    pub clock: ManualClock,
    pub running: Running,
    /// Where the client app calls.
    pub proxy: SocketAddr,
    /// Where end users' browsers go.
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub environment: Settings,
}

impl Plan {
    pub fn new() -> Plan {
        Plan {
            listen: "  proxy: 127.0.0.1:0\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n".into(),
            top: String::new(),
            provider: String::new(),
            providers: String::new(),
            token_hosts: Vec::new(),
            token_url: "http://SANDBOX/token".into(),
            routes: ROUTES.into(),
            store: "{memory: {}, encryption_key_file: ./attache.key}".to_owned(),
            admin: format!("admin: {{token: {ADMIN_TOKEN}}}\n"),
            tls: TlsRoots::with_roots(Vec::new()),
            workers: 2,
        }
    }

    /// The lines under `listen:`.
    pub fn listen(mut self, lines: &str) -> Plan {
        self.listen = lines.into();
        self
    }

    /// The section `admin:`, whole.
    pub fn admin(mut self, lines: &str) -> Plan {
        self.admin = lines.into();
        self
    }

    /// Further lines at the top level.
    pub fn top(mut self, lines: &str) -> Plan {
        self.top.push_str(lines);
        self
    }

    /// Further lines of the provider `sandbox`, indented by four.
    pub fn provider(mut self, lines: &str) -> Plan {
        self.provider.push_str(lines);
        self
    }

    /// Further providers, indented by two.
    pub fn providers(mut self, lines: &str) -> Plan {
        self.providers.push_str(lines);
        self
    }

    /// Lets the sandbox's tokens go there too.
    pub fn token_host(self, address: SocketAddr) -> Plan {
        self.token_name(&address.to_string())
    }

    /// The same by name and port.
    pub fn token_name(mut self, name: &str) -> Plan {
        self.token_hosts.push(name.to_owned());
        self
    }

    pub fn token_url(mut self, url: &str) -> Plan {
        self.token_url = url.into();
        self
    }

    /// Further routes, indented by two.
    pub fn routes(mut self, lines: &str) -> Plan {
        self.routes.push_str(lines);
        self
    }

    /// A route under `/up/` for everything of a scripted upstream, with the end user's token; `keys` are further lines, indented by four.
    pub fn up(self, address: SocketAddr, keys: &str) -> Plan {
        let route =
            format!("  - name: up\n    match: /up/{{*rest}}\n    provider: sandbox\n    upstream: http://{address}/{{rest}}\n{keys}");
        self.token_host(address).routes(&route)
    }

    pub fn on_disk(mut self) -> Plan {
        self.store = "{sled: {path: ./attache.db}, encryption_key_file: ./attache.key}".to_owned();
        self
    }

    /// `store:` as it stands in the config.
    pub fn store(mut self, yaml: &str) -> Plan {
        self.store = yaml.to_owned();
        self
    }

    pub fn tls(mut self, roots: Arc<TlsRoots>) -> Plan {
        self.tls = roots;
        self
    }

    /// How many there are; which one a connection comes to is the kernel's choice.
    pub fn workers(mut self, count: usize) -> Plan {
        self.workers = count;
        self
    }

    pub fn yaml(&self, sandbox: SocketAddr) -> String {
        let hosts: Vec<String> = self.token_hosts.iter().chain([&sandbox.to_string()]).map(|host| format!("\"{host}\"")).collect();
        let Plan { listen, top, provider, providers, token_url, routes, store, admin, .. } = self;
        let yaml = format!(
            "listen:\n{listen}store: {store}\n{admin}{top}providers:\n  sandbox:\n    client_id: {}\n    \
             client_secret: {}\n    authorize_url: http://SANDBOX/authorize\n    token_url: {token_url}\n    device_authorization_url: http://SANDBOX/device_authorization\n    revoke_url: http://SANDBOX/revoke\n    token_hosts: [{}]\n{provider}{providers}routes:\n{routes}",
            sandbox::Settings::DEV_CLIENT_ID,
            sandbox::Settings::DEV_CLIENT_SECRET,
            hosts.join(", "),
        );
        yaml.replace("SANDBOX", &sandbox.to_string())
    }

    pub async fn start(self) -> World {
        let clock = ManualClock::at(START);
        let settings =
            sandbox::Settings { bind: ([127, 0, 0, 1], 0).into(), access_token_life: TOKEN_LIFE, ..sandbox::Settings::default() };
        let sandbox = Sandbox::start(settings, Arc::new(clock.clone())).await.expect("the sandbox starts");
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("routes.yaml");
        fs::write(&config, self.yaml(sandbox.addr)).expect("written");
        let settings = Settings {
            config,
            environment: Arc::new(|_| None),
            clock: Arc::new(clock.clone()),
            tls: self.tls,
            workers: NonZeroUsize::new(self.workers),
        };
        let running = app::start(settings.clone()).await.unwrap_or_else(|error| panic!("attache starts: {error}"));
        let (proxy, public, admin) = (running.proxy[0], running.public[0], running.admin[0]);
        World { folder, sandbox, clock, running, proxy, public, admin, environment: settings }
    }
}

impl World {
    /// With the common routes.
    pub async fn start() -> World {
        Plan::new().start().await
    }

    /// With these routes, whose `UP` is the upstream's address, and Megan connected.
    pub async fn in_front_of(upstream: &Upstream, routes: &str) -> World {
        let routes = routes.replace("UP", &upstream.address.to_string());
        let world = Plan::new().token_host(upstream.address).routes(&routes).start().await;
        world.connect(MEGAN).await;
        world
    }

    /// With the common routes and Megan connected.
    pub async fn connected() -> World {
        let world = World::start().await;
        world.connect(MEGAN).await;
        world
    }

    /// Stops Attaché and starts it anew on the same folder, on new ports.
    pub async fn restart(mut self) -> World {
        self.running.stop().await.expect("stopped");
        self.running = app::start(self.environment.clone()).await.unwrap_or_else(|error| panic!("attache starts again: {error}"));
        (self.proxy, self.public, self.admin) = (self.running.proxy[0], self.running.public[0], self.running.admin[0]);
        self
    }

    /// Another Attaché of the same config, on ports of its own.
    pub async fn replica(&self) -> Running {
        app::start(self.environment.clone()).await.unwrap_or_else(|error| panic!("the replica starts: {error}"))
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("routes.yaml")
    }

    pub fn live(&self) -> &Arc<Live> {
        &self.running.live
    }

    pub fn registration(&self) -> Arc<Registration> {
        Arc::clone(&self.live().snapshot().providers["sandbox"])
    }

    /// Connects a user with a fresh grant of the sandbox.
    pub async fn connect(&self, user: &str) -> IssuedGrant {
        let grant = self.sandbox.issue_grant(user, &["photos.read", "photos.write", "profile"]).expect("a client");
        self.import(&json!({
            "provider": "sandbox", "end_user": user, "access_token": grant.access_token.expose(),
            "refresh_token": grant.refresh_token.as_ref().map(|token| token.expose()), "expires_at": grant.expires_at.to_rfc3339(),
        }))
        .await;
        grant
    }

    /// Connects a user whose access token has expired, so that the first call must refresh it.
    pub async fn connect_expired(&self, user: &str) -> IssuedGrant {
        let grant = self.sandbox.issue_grant(user, &["photos.read", "photos.write", "profile"]).expect("a client");
        self.import(&json!({
            "provider": "sandbox", "end_user": user, "access_token": grant.access_token.expose(),
            "refresh_token": grant.refresh_token.as_ref().map(|token| token.expose()), "expires_at": START.minus(Duration::from_secs(1)).to_rfc3339(),
        }))
        .await;
        grant
    }

    pub async fn import(&self, line: &Value) {
        let connection = parse_import(&line.to_string(), self.clock.now()).expect("an import line");
        self.running.records.put_connection(&connection, Expect::Any).await.expect("written");
        self.running.keeper.forget(connection.key.borrow());
    }

    /// The user's connection as it is stored.
    pub async fn stored(&self, user: &str) -> Option<Connection> {
        self.running.records.connection(&key(user)).await.expect("read").map(|keyed| keyed.record)
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        wire::call(self.proxy, request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[("x-end-user", MEGAN)], empty()).await
    }

    pub async fn get_as(&self, user: &str, path: &str) -> Answer {
        self.call("GET", path, &[("x-end-user", user)], empty()).await
    }

    /// A call with exactly these headers besides `Host`.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        self.send(with_headers(wire::request(method, path), headers).body(body).expect("a request")).await
    }

    /// A call of the admin API with its token.
    pub async fn admin(&self, method: &str, path: &str) -> Answer {
        self.admin_with(method, path, empty()).await
    }

    /// The same with a JSON body.
    pub async fn admin_json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.admin_with(method, path, wire::whole(body.to_string())).await
    }

    async fn admin_with(&self, method: &str, path: &str, body: Body) -> Answer {
        let request = wire::request(method, path).header("authorization", format!("Bearer {ADMIN_TOKEN}"));
        wire::call(self.admin, request.body(body).expect("a request")).await
    }
}

pub fn key(user: &str) -> ConnectionKey {
    ConnectionKey::new("sandbox", user, "default")
}

pub fn with_headers(mut request: http::request::Builder, headers: &[(&str, &str)]) -> http::request::Builder {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A port that nobody has at this moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").port()
}
