//! `attache store copy`: from one store to another, compared at the end.

use super::pages::Served;
use super::{CopyArgs, failure};
use crate::app::store::Spec;
use crate::cli::api::{Api, Target};
use crate::cli::{ConfigArg, Failure, Outcome, print};
use crate::store::Records;
use crate::store::mirror::{self, Mirrored, Over};
use crate::store::pages::Source;
use crate::store::seal::Sealer;
use http::Method;
use std::time::Duration;

/// How many passes follow a serving store before it is told that it does not come to rest.
const PASSES_MAX: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// How often the server is asked whether what was under way has ended.
const GATE_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(args: &CopyArgs) -> Outcome {
    let from = Spec::named(&args.from, &args.config.config, &crate::cli::environment).map_err(failure)?;
    let to = Spec::named(&args.to, &args.config.config, &crate::cli::environment).map_err(failure)?;
    if from.kind == to.kind {
        return Err(Failure::usage("attache: FROM and TO are the same store"));
    }
    let server = server_of(args).await?;
    if args.cancel || args.finish {
        let Some(api) = &server else {
            return Err(Failure::usage("attache: no server of FROM answers: --finish and --cancel are for a running one"));
        };
        if args.cancel {
            gate(api, "open").await?;
            return print("the server takes writes again: what it writes from now on is not in TO\n");
        }
    }
    let sealer = from.sealer().map_err(failure)?;
    let records = match server {
        Some(_) => None,
        None => Some(from.open_existing().await.map_err(failure)?),
    };
    let target = match to.open_or_make().await {
        Ok(target) => target,
        Err(error) => {
            close(records).await?;
            return Err(failure(error));
        }
    };
    let outcome = match (&server, &records) {
        (Some(api), _) => match follow(args, &Served(api), &sealer, &target).await {
            Ok(()) if args.finish => finish(args, api, &sealer, &target).await,
            outcome => outcome,
        },
        (None, Some(records)) => copy(args, records, &sealer, &target).await,
        (None, None) => Ok(()),
    };
    let closed = close(Some(target)).await;
    let also_closed = close(records).await;
    outcome.and(closed).and(also_closed)
}

/// The server that has FROM open, if FROM is a config file and its server runs.
async fn server_of(args: &CopyArgs) -> Result<Option<Api>, Failure> {
    if args.from.starts_with("sled:") {
        return Ok(None);
    }
    let config = ConfigArg { config: (&args.from).into() };
    Api::server(&Target { config, server: None, token: args.token.clone() }).await
}

async fn close(records: Option<Records>) -> Outcome {
    match records {
        Some(records) => records.close().await.map_err(Failure::runtime),
        None => Ok(()),
    }
}

/// Nobody else writes: one pass copies, one compares.
async fn copy(args: &CopyArgs, from: &Records, sealer: &Sealer, to: &Records) -> Outcome {
    refuse_filled(args, to).await?;
    let copied = pass(args, from, sealer, to).await?;
    let compared = pass(args, from, sealer, to).await?;
    if !compared.is_same() {
        return Err(Failure::runtime("the stores differ after the copy: something else writes to one of them"));
    }
    print(&format!(
        "copied: {} written, {} deleted; {} records compared, each the same. TO is exact: start the server on it, and keep FROM aside\n",
        copied.written, copied.deleted, compared.same
    ))
}

/// The server goes on: passes are made until one finds nothing new.
async fn follow(args: &CopyArgs, from: &dyn Source, sealer: &Sealer, to: &Records) -> Outcome {
    refuse_filled(args, to).await?;
    for number in 1..=PASSES_MAX {
        let done = pass(args, from, sealer, to).await?;
        print(&format!("pass {number}: {} written, {} deleted, {} the same\n", done.written, done.deleted, done.same))?;
        if done.is_same() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if args.finish {
        return Ok(());
    }
    print(
        "TO has caught up with the running server, which goes on writing to FROM. Now either run this command once more with --resume --finish, which stops its writes and \
         makes TO exact; or stop the server, and run it once more with --resume. Then start the server with the config of TO\n",
    )
}

/// Stops the server's writes, takes over the last of them, and compares. If that fails the server goes on as before.
async fn finish(args: &CopyArgs, api: &Api, sealer: &Sealer, to: &Records) -> Outcome {
    let finished = async {
        while gate(api, "close").await? != "closed" {
            tokio::time::sleep(GATE_PAUSE).await;
        }
        let (last, compared) = (pass(args, &Served(api), sealer, to).await?, pass(args, &Served(api), sealer, to).await?);
        if compared.is_same() {
            Ok((last, compared))
        } else {
            Err(Failure::runtime("the stores differ after the copy: something else writes to TO"))
        }
    };
    match finished.await {
        Ok((last, compared)) => print(&format!(
            "last: {} written, {} deleted; {} records compared, each the same. TO is exact. The server serves fresh tokens and takes no writes: restart \
             it with the config of TO now, or let it go on with --cancel\n",
            last.written, last.deleted, compared.same
        )),
        Err(failure) => {
            gate(api, "open").await?;
            Err(failure)
        }
    }
}

/// Moves the gate before the server's store; answers how far it is closed.
async fn gate(api: &Api, to: &str) -> Result<String, Failure> {
    let answer = api.call(&Method::POST, &format!("/v1/store/gate/{to}"), None).await?.ok()?;
    Ok(answer["gate"].as_str().unwrap_or_default().to_owned())
}

async fn refuse_filled(args: &CopyArgs, to: &Records) -> Outcome {
    if !args.resume && !to.is_empty().await.map_err(Failure::runtime)? {
        return Err(Failure::runtime(
            "TO holds records already: give --resume if they are of an earlier copy of FROM, or name an empty store",
        ));
    }
    Ok(())
}

async fn pass(args: &CopyArgs, from: &dyn Source, sealer: &Sealer, to: &Records) -> Result<Mirrored, Failure> {
    let over = if args.overwrite { Over::Anything } else { Over::Older };
    mirror::pass(from, sealer, to, over).await.map_err(|error| match error {
        mirror::MirrorError::Newer(_) => {
            Failure::runtime(format!("{error}. Nothing of it was changed; --overwrite takes FROM's state all the same"))
        }
        other => Failure::runtime(other),
    })
}
