//! `attache store`: check, repair, back up, restore and copy the token store.

mod backup;
mod check;
mod copy;
mod pages;
mod repair;

use super::api::Target;
use super::{ConfigArg, Failure, Outcome};
use crate::app::AppError;
use crate::app::store::Spec;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum StoreVerb {
    /// Open every record and tell what the store holds, which keys sealed it and what does not open. Changes nothing. Ends with 0 if all is whole,
    /// with 1 if something does not open or the store refuses.
    Check(CheckArgs),
    /// Make a whole store of what can still be read of one that refuses to start. Only looks and tells what would be lost, unless --yes is given;
    /// the old folder is kept beside the new one. Ends with 1 if something needs --yes.
    Repair(RepairArgs),
    /// Write all records into one file, sealed as they are: through the running server, or from the store while none runs. The file is of no use
    /// without the store's encryption keys, which are not in it; it names providers and end users.
    Backup(BackupArgs),
    /// Put a backup's records into a store that is absent or empty. No server may run.
    Restore(RestoreArgs),
    /// Copy all records from one store to another, and compare them. Each is a config file, or `sled:PATH` with the keys of -c. While FROM's server runs the
    /// copy follows it, and --finish makes it exact.
    Copy(CopyArgs),
}

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    target: Target,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// Leave out records that only a missing key or a newer attache can open. They are lost to the new store.
    #[arg(long)]
    drop_unopened: bool,
    /// A backup: name the connections in it that cannot be salvaged, because they are lost or were deleted since.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    target: Target,
    /// Where to. It appears whole or not at all.
    file: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    config: ConfigArg,
    file: PathBuf,
    /// Move a store that holds something aside, and put the backup in its place.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(super) struct CopyArgs {
    #[command(flatten)]
    config: ConfigArg,
    from: String,
    to: String,
    /// The admin token of FROM's running server; else the one that its config names.
    #[arg(long, value_name = "TOKEN", env = "ATTACHE_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Go on with a copy: TO may hold records already, and is made the same as FROM. Refused where TO is newer.
    #[arg(long)]
    resume: bool,
    /// While FROM's server runs: in the end stop its writes, so that TO is exact. It then serves fresh tokens and refreshes none, until it is
    /// restarted on TO, or --cancel lets it go on.
    #[arg(long)]
    finish: bool,
    /// Let FROM's running server go on after --finish, and copy nothing.
    #[arg(long, conflicts_with = "finish")]
    cancel: bool,
    /// With --resume: also take back what is newer in TO.
    #[arg(long, requires = "resume")]
    overwrite: bool,
}

pub(super) fn run(verb: StoreVerb) -> Outcome {
    super::api::block_on(async {
        match verb {
            StoreVerb::Check(args) => check::run(&args).await,
            StoreVerb::Repair(args) => repair::run(&args).await,
            StoreVerb::Backup(args) => backup::write(&args).await,
            StoreVerb::Restore(args) => backup::restore(&args).await,
            StoreVerb::Copy(args) => copy::run(&args).await,
        }
    })
}

/// The store that a config names.
fn spec_of(config: &ConfigArg) -> Result<Spec, Failure> {
    let snapshot = crate::config::load(&config.config, &super::environment).map_err(Failure::usage)?;
    Ok(Spec::of(&snapshot.startup))
}

/// A fault of a config is the caller's.
fn failure(error: AppError) -> Failure {
    match error {
        AppError::Config(errors) => Failure::usage(errors),
        other => Failure::runtime(other),
    }
}
