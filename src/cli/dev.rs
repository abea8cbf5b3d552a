//! `attache dev`: the sandbox and the proxy in one process, with megan@personalemail.com connected, in a temporary folder.

use super::{Failure, Outcome};
use crate::app::{self, AppError, Settings};
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::sandbox::{self, Sandbox};
use crate::store::{Expect, keyfile, wire};
use clap::Args;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The end user that is connected from the start.
const USER: &str = "megan@personalemail.com";
/// One who is not.
const OTHER: &str = "alex@personalemail.com";
/// The config, with the addresses left open.
const CONFIG: &str = include_str!("dev.yaml");

#[derive(Args)]
pub(super) struct DevArgs {
    /// Where the app calls Attaché.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    proxy: SocketAddr,
    /// Where end users' browsers connect.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071")]
    public: SocketAddr,
    /// The admin API: connect links, connections, reload, health.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7072")]
    admin: SocketAddr,
    /// Where the sandbox provider listens; loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7080")]
    sandbox: SocketAddr,
}

pub(super) fn run(args: &DevArgs) -> Outcome {
    let folder = tempfile::Builder::new().prefix("attache-dev-").tempdir().map_err(Failure::runtime)?;
    super::run::block_on(dev(args, folder.path()))
}

async fn dev(args: &DevArgs, folder: &Path) -> Result<(), AppError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let settings = sandbox::Settings { bind: args.sandbox, ..sandbox::Settings::default() };
    let sandbox = Sandbox::start(settings, clock).await.map_err(|error| {
        AppError::Other(format!("cannot listen on {} (sandbox): {error}; stop what has it, or choose another with --sandbox", args.sandbox))
    })?;
    let config = folder.join("routes.yaml");
    let text = CONFIG
        .replace("{PROXY}", &format!("\"{}\"", args.proxy))
        .replace("{PUBLIC}", &format!("\"{}\"", args.public))
        .replace("{ADMIN}", &format!("\"{}\"", args.admin))
        .replace("{SANDBOX}", &sandbox.addr.to_string());
    std::fs::write(&config, text)?;
    // Made here and not at the start, which would ask for backups of what is gone with the folder.
    keyfile::load_or_make_key(&folder.join("attache.key"), false)?;
    keyfile::load_or_make(&folder.join("attache.admin-token"), || Secret::new(random_token()), true)?;
    let running = app::start(Settings::new(config)).await?;
    connect(&running, &sandbox).await?;
    let proxy = running.proxy.first().copied().unwrap_or(args.proxy);
    let admin = running.admin.first().copied().unwrap_or(args.admin);
    let photo = sandbox.photo_ids(USER).into_iter().next().unwrap_or_default();
    print(&welcome(proxy, admin, &photo, folder));
    app::until_signal(running).await
}

/// Connects the user as an import would: the sandbox issues a grant as it does at the end of its own consent page.
async fn connect(running: &app::Running, sandbox: &Sandbox) -> Result<(), AppError> {
    let grant = sandbox.issue_grant(USER, &["photos.read", "photos.write"]);
    let grant = grant.ok_or_else(|| AppError::Other("the sandbox has no client".to_owned()))?;
    let line = serde_json::json!({
        "provider": "sandbox", "end_user": USER,
        "access_token": grant.access_token.expose(), "refresh_token": grant.refresh_token.as_ref().map(|token| token.expose()), "expires_at": grant.expires_at.to_rfc3339(),
        "scopes": ["photos.read", "photos.write"],
    });
    let connection = wire::parse_import(&line.to_string(), SystemClock.now()).map_err(AppError::Other)?;
    running.records.put_connection(&connection, Expect::Any).await?;
    Ok(())
}

fn welcome(proxy: SocketAddr, admin: SocketAddr, photo: &str, folder: &Path) -> String {
    let base = format!("http://localhost:{}", proxy.port());
    format!(
        "
Attaché is running, and {USER} is connected to the sandbox provider.

List her photos, then fetch one in full size:

  curl -H 'X-End-User: {USER}' {base}/photos
  curl -H 'X-End-User: {USER}' {base}/photos/{photo} -o photo.jpg

Her access token lives 30 s. Call again after that: the log below shows the one refresh.
Who is not connected gets told how to connect:

  curl -i -H 'X-End-User: {OTHER}' {base}/photos

Make a link for them, and open its connect_url in a browser:

  curl -H \"Authorization: Bearer $(cat {token})\" http://{admin}/v1/connect-sessions -d '{{\"end_user\": \"{OTHER}\"}}'

The route map is {config}
Edit it while this runs; changes go live. The admin token is beside it. Ctrl-C stops it all.

",
        token = folder.join("attache.admin-token").display(),
        config = folder.join("routes.yaml").display(),
    )
}

fn print(text: &str) {
    // A reader that has gone away is no reason to stop serving.
    let _ = super::print(text);
}
