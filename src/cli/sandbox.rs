//! `attache sandbox`: the provider of our own, until a signal ends it.

use super::Outcome;
use crate::app::AppError;
use crate::base::clock::SystemClock;
use crate::sandbox::{Sandbox, Settings};
use clap::Args;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args)]
pub(super) struct SandboxArgs {
    /// Where to listen; loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7080")]
    listen: SocketAddr,
    /// How long access tokens live, as in `30s` or `1h`.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    token_life: Duration,
    /// How long the last refresh token may be used again after it was rotated. Any later use ends the grant.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    reuse_leeway: Duration,
    /// Keep refresh tokens instead of rotating them.
    #[arg(long)]
    no_rotation: bool,
    /// Answer token calls only after so long.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    token_delay: Duration,
    /// Besides the usual ones, where its client may have browsers sent; may be repeated. A loopback one fits with any port.
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
}

pub(super) fn run(args: &SandboxArgs) -> Outcome {
    super::run::block_on(serve(args))
}

async fn serve(args: &SandboxArgs) -> Result<(), AppError> {
    let sandbox = Sandbox::start(settings(args), Arc::new(SystemClock)).await?;
    let base = format!("http://{}", sandbox.addr);
    tracing::info!(authorize = %format!("{base}/authorize"), token = %format!("{base}/token"), photos = %format!("{base}/v1/photos"), "the sandbox is ready");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Losing either arm is safe: the process ends with both.
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}

fn settings(args: &SandboxArgs) -> Settings {
    let mut settings = Settings {
        bind: args.listen,
        access_token_life: args.token_life,
        reuse_leeway: args.reuse_leeway,
        rotate: !args.no_rotation,
        token_delay: args.token_delay,
        ..Settings::default()
    };
    for client in &mut settings.clients {
        client.redirect_uris.extend(args.redirect_uris.iter().cloned());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sandbox: SandboxArgs,
    }

    #[test]
    fn further_redirect_uris_stand_beside_the_usual_ones() {
        let usual = Settings::default().clients[0].redirect_uris.clone();
        let mine = "http://localhost:7071/oauth/callback/lumen";
        let line = Line::parse_from(["sandbox", "--redirect-uri", mine]);
        assert_eq!(settings(&line.sandbox).clients[0].redirect_uris, [usual, vec![mine.to_owned()]].concat());
    }
}
