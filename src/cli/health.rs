//! `attache health`: asks a running Attaché whether it is ready; the health check of containers that have no curl.

use super::api::{dialable, fetch_of};
use super::{ConfigArg, Failure, Outcome};
use crate::config::{Bind, Listener};
use crate::upstream::Fetch;
use bytes::Bytes;
use clap::Args;
use http::Request;
use std::net::SocketAddr;

#[derive(Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Ask this address, by plain HTTP, instead of the one that the config names, as in `127.0.0.1:7072`.
    #[arg(long, value_name = "ADDR")]
    address: Option<SocketAddr>,
}

pub(super) fn run(args: &HealthArgs) -> Outcome {
    let (url, fetch) = match args.address {
        Some(address) => (format!("http://{address}"), fetch_of(None)),
        // Without a config, as in `attache dev`, the admin listener is where it is by default.
        None if !args.config.config.exists() => ("http://127.0.0.1:7072".to_owned(), fetch_of(None)),
        None => {
            let snapshot = crate::config::load(&args.config.config, &super::environment).map_err(Failure::usage)?;
            let startup = &snapshot.startup;
            let health = startup.health.as_ref().and_then(tcp).map(|address| (address, snapshot.tls.health.as_deref()));
            let door = health.or_else(|| tcp(&startup.admin).map(|address| (address, snapshot.tls.admin.as_deref())));
            let (address, tls) =
                door.ok_or_else(|| Failure::usage("no health or admin listener has a TCP address: give one with --address"))?;
            (format!("{}://{address}", if tls.is_some() { "https" } else { "http" }), fetch_of(tls))
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(ask(&url, &fetch))
}

fn tcp(listener: &Listener) -> Option<SocketAddr> {
    listener.binds.iter().find_map(|bind| match bind {
        Bind::Tcp(address) => Some(dialable(*address)),
        Bind::Unix(_) => None,
    })
}

async fn ask(url: &str, fetch: &Fetch) -> Outcome {
    let request = Request::get(format!("{url}/readyz")).body(Bytes::new()).map_err(Failure::runtime)?;
    let answer = fetch.send(request).await.map_err(|error| Failure::runtime(format!("{url} does not answer: {error}")))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(Failure::runtime(format!("not ready ({}): {}", answer.status(), String::from_utf8_lossy(answer.body()).trim())))
}
