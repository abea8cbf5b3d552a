//! `attache connections`: import, list and delete, on the store itself while no server runs on it.

use super::{ConfigArg, Failure, Outcome, print};
use crate::app;
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::{ConnectionKey, DEFAULT_ACCOUNT};
use crate::config::{Snapshot, StoreKind};
use crate::store::{Connection, Expect, Records, wire};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::io::Read;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum ConnectionsVerb {
    /// Read connections as JSON lines: {"provider","end_user","account","access_token","refresh_token","token_type","expires_at","scopes",
    /// "metadata"}; provider, end_user and one token are required, expires_at is RFC 3339. All lines are checked before one is stored.
    Import(ImportArgs),
    /// One line a connection, without tokens.
    List(ListArgs),
    /// Delete one connection from the store. It is not revoked at the provider.
    Delete(DeleteArgs),
}

#[derive(Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The file; `-` or nothing for standard input, which keeps tokens out of the disk.
    #[arg(default_value = "-")]
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Of this provider alone.
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// JSON lines instead of columns.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The provider, by its name in routes.yaml.
    provider: String,
    end_user: String,
    #[arg(long, default_value = DEFAULT_ACCOUNT)]
    account: String,
}

const PAGE: usize = 500;

pub(super) fn run(verb: ConnectionsVerb) -> Outcome {
    let config = match &verb {
        ConnectionsVerb::Import(args) => &args.config,
        ConnectionsVerb::List(args) => &args.config,
        ConnectionsVerb::Delete(args) => &args.config,
    };
    let snapshot = crate::config::load(&config.config, &super::environment).map_err(Failure::usage)?;
    if snapshot.startup.store == StoreKind::Memory {
        return Err(Failure::usage(
            "the store is `memory`, which lives inside the running server alone: there is nothing here to read or write",
        ));
    }
    let lines = match &verb {
        ConnectionsVerb::Import(args) => read_lines(&args.file, &snapshot)?,
        _ => Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(async {
        let records = app::open_records(&snapshot.startup).await.map_err(Failure::runtime)?;
        let outcome = match &verb {
            ConnectionsVerb::Import(_) => import(&records, lines).await,
            ConnectionsVerb::List(args) => list(&records, args).await,
            ConnectionsVerb::Delete(args) => delete(&records, args).await,
        };
        let closed = records.close().await.map_err(Failure::runtime);
        outcome.and(closed)
    })
}

/// Parses and checks every line first, so that a bad one stores nothing.
fn read_lines(file: &PathBuf, snapshot: &Snapshot) -> Result<Vec<Connection>, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut open| open.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    let text = zeroize::Zeroizing::new(text);
    let (mut connections, mut faults) = (Vec::new(), String::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parsed = wire::parse_import(line, SystemClock.now()).and_then(|connection| {
            let known = snapshot.providers.contains_key(&*connection.key.provider);
            if known { Ok(connection) } else { Err(format!("provider `{}` is not in routes.yaml", connection.key.provider)) }
        });
        match parsed {
            Ok(connection) => connections.push(connection),
            // Writing to a String cannot fail.
            Err(why) => drop(writeln!(faults, "{}:{}: {why}", file.display(), number + 1)),
        }
    }
    if faults.is_empty() { Ok(connections) } else { Err(Failure::Usage(format!("{faults}nothing was imported"))) }
}

async fn import(records: &Records, connections: Vec<Connection>) -> Outcome {
    let (mut new, mut replaced) = (0, 0);
    for mut connection in connections {
        let known = records.connection(&connection.key).await.map_err(Failure::runtime)?;
        match known {
            None => new += 1,
            Some(known) => {
                // A connection that is given new tokens stays the same one.
                connection.id = known.record.id;
                connection.created_at = known.record.created_at;
                replaced += 1;
            }
        }
        // With its intent gone too: a token call of the grant before, cut off by a crash, is no concern of this one.
        records.settle(&connection, Expect::Any).await.map_err(Failure::runtime)?;
    }
    print(&format!("imported {new} new connections, replaced the tokens of {replaced}\n"))
}

async fn list(records: &Records, args: &ListArgs) -> Outcome {
    let mut after: Option<ConnectionKey> = None;
    loop {
        let page = records.connections(args.provider.as_deref(), after.as_ref(), PAGE).await.map_err(Failure::runtime)?;
        let mut text = String::new();
        for found in &page {
            let connection = &found.record;
            if args.json {
                let _ = writeln!(text, "{}", wire::shown(connection));
            } else {
                let ends = connection.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_rfc3339());
                let key = &connection.key;
                let _ = writeln!(
                    text,
                    "{:<26} {:<14} {:<32} {:<10} {:<18} {ends}",
                    connection.id,
                    key.provider,
                    key.end_user,
                    key.account,
                    connection.state.name()
                );
            }
        }
        print(&text)?;
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.record.key.clone()),
            _ => return Ok(()),
        }
    }
}

async fn delete(records: &Records, args: &DeleteArgs) -> Outcome {
    let key = ConnectionKey::new(&args.provider, &args.end_user, &args.account);
    match records.delete_connection(&key).await.map_err(Failure::runtime)? {
        Some(_) => print("deleted; revoke it at the provider too if it should not live on there\n"),
        None => Err(Failure::runtime("no such connection: `attache connections list` shows them")),
    }
}
