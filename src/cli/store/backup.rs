//! `attache store backup` and `restore`.

use super::pages::Served;
use super::{BackupArgs, RestoreArgs, failure, spec_of};
use crate::app;
use crate::base::clock::{Clock, SystemClock};
use crate::cli::api::Api;
use crate::cli::{ConfigArg, Failure, Outcome, print};
use crate::store::backup;

pub(super) async fn write(args: &BackupArgs) -> Outcome {
    if !args.force && args.file.exists() {
        return Err(Failure::usage(format!("attache: {} exists: name another file, or give --force", args.file.display())));
    }
    let api = Api::open(&args.target).await?;
    let written = backup::write(&Served(&api), &args.file, SystemClock.now(), args.force).await;
    let closed = api.close().await;
    let summary = written.map_err(|error| Failure::runtime(format!("{}: {error}", args.file.display())))?;
    closed?;
    let keys = summary.keys.keys().cloned().collect::<Vec<_>>().join(", ");
    let needs =
        if keys.is_empty() { String::new() } else { format!("; to be read it needs the encryption key {keys}, which is not in it") };
    print(&format!("{}: {}{needs}\n", args.file.display(), summary.describe()))
}

pub(super) async fn restore(args: &RestoreArgs) -> Outcome {
    no_server(&args.config).await?;
    let spec = spec_of(&args.config)?;
    let done = app::store::restore(&spec, &args.file, args.force, SystemClock.now()).await.map_err(failure)?;
    if let Some(aside) = &done.aside {
        print(&format!("the store that was there is now {}\n", aside.display()))?;
    }
    print(&format!(
        "restored {} as of {}. Refresh tokens that were used since may be dead at their provider: such a connection turns to reconnect_required \
         at its next refresh, and its end user connects anew\n",
        done.summary.describe(),
        done.summary.made_at
    ))
}

/// What works on the store's files needs them for itself.
pub(super) async fn no_server(config: &ConfigArg) -> Outcome {
    let target = crate::cli::api::Target { config: config.clone(), server: None, token: None };
    match Api::server(&target).await? {
        Some(_) => Err(Failure::runtime("a server runs on this config: stop it first")),
        None => Ok(()),
    }
}
