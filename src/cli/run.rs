//! `attache run`: the proxy, until a signal ends it.

use super::{ConfigArg, Failure, Outcome};
use crate::app::{self, Settings};
use clap::Args;

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// How many worker threads serve calls; by default one for each core that this process may use.
    #[arg(long, value_name = "N", env = "ATTACHE_WORKERS")]
    workers: Option<std::num::NonZeroUsize>,
}

pub(super) fn run(args: RunArgs) -> Outcome {
    let mut settings = Settings::new(args.config.config);
    settings.workers = args.workers;
    block_on(app::serve(settings))
}

/// Runs on the control runtime: two threads for refreshes, the store's front and the admin API. Calls have threads of their own.
pub(super) fn block_on(future: impl Future<Output = Result<(), app::AppError>>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("attache-control")
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    match runtime.block_on(future) {
        Err(app::AppError::Config(errors)) => Err(Failure::usage(errors)),
        outcome => outcome.map_err(Failure::runtime),
    }
}
