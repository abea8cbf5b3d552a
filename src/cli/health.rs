//! `attache health`: asks a running Attaché whether it is ready; the health check of containers that have no curl.

use super::{ConfigArg, Failure, Outcome};
use crate::config::{Bind, Listener};
use bytes::Bytes;
use clap::Args;
use http::Request;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

#[derive(Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Ask this address instead of the one that the config names, as in `127.0.0.1:7072`.
    #[arg(long, value_name = "ADDR")]
    address: Option<SocketAddr>,
}

pub(super) fn run(args: &HealthArgs) -> Outcome {
    let address = match args.address {
        Some(address) => address,
        // Without a config, as in `attache dev`, the admin listener is where it is by default.
        None if !args.config.config.exists() => SocketAddr::from((Ipv4Addr::LOCALHOST, 7072)),
        None => {
            let snapshot = crate::config::load(&args.config.config, &super::environment).map_err(Failure::usage)?;
            let startup = &snapshot.startup;
            let address = startup.health.iter().chain([&startup.admin]).find_map(tcp);
            address.ok_or_else(|| Failure::usage("no health or admin listener has a TCP address: give one with --address"))?
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(ask(address))
}

/// An address that this machine can dial: an unspecified one is reached by loopback.
fn tcp(listener: &Listener) -> Option<SocketAddr> {
    listener.binds.iter().find_map(|bind| match bind {
        Bind::Tcp(address) if address.ip().is_unspecified() => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())),
        Bind::Tcp(address) => Some(*address),
        Bind::Unix(_) => None,
    })
}

async fn ask(address: SocketAddr) -> Outcome {
    let request = Request::get(format!("http://{address}/readyz")).body(Bytes::new()).map_err(Failure::runtime)?;
    let fetch = crate::upstream::Fetch::new(crate::upstream::TlsRoots::system());
    let answer = fetch.send(request).await.map_err(|error| Failure::runtime(format!("{address} does not answer: {error}")))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(Failure::runtime(format!("not ready ({}): {}", answer.status(), String::from_utf8_lossy(answer.body()).trim())))
}
