//! `attache connections`: list, show, refresh, delete, import and export, each by the admin API.

use super::api::{self, Api, Target, connection_path, query};
use super::{Failure, Outcome, nango, print};
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::DEFAULT_ACCOUNT;
use crate::store::wire;
use clap::{Args, Subcommand, ValueEnum};
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt::Write;
use std::io::Read;
use std::path::PathBuf;
use zeroize::Zeroizing;

#[derive(Subcommand)]
pub(super) enum ConnectionsVerb {
    /// One line a connection, without tokens.
    List(ListArgs),
    /// One connection as JSON, without its tokens.
    Show(OneArgs),
    /// Refresh one connection's access token now.
    Refresh(OneArgs),
    /// Delete one connection, and revoke it at the provider where that can be.
    Delete(OneArgs),
    /// Read connections as JSON lines: {"provider","end_user","account","access_token","refresh_token","token_secret","token_type",
    /// "expires_at","scopes","metadata"}; provider, end_user and one token or key are required, expires_at is RFC 3339. All lines are checked before one is stored.
    Import(ImportArgs),
    /// Write connections as import lines, sealed with the store's key: an Attaché that has the same key reads them.
    Export(ExportArgs),
}

#[derive(Args)]
pub(super) struct OneArgs {
    #[command(flatten)]
    target: Target,
    /// The provider, by its name in routes.yaml.
    provider: String,
    end_user: String,
    #[arg(long, value_name = "LABEL", default_value = DEFAULT_ACCOUNT)]
    account: String,
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    target: Target,
    /// Of this provider alone.
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// Of this end user alone.
    #[arg(long, value_name = "NAME")]
    end_user: Option<String>,
    /// In this state alone: pending, active, expired or reconnect_required.
    #[arg(long)]
    state: Option<String>,
    /// JSON lines instead of columns.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    target: Target,
    /// The file; `-` or nothing for standard input, which keeps tokens out of the disk.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// What the file was written by.
    #[arg(long, value_enum, default_value_t = Source::Attache)]
    from: Source,
    /// A provider's name in the file and in routes.yaml, as in `google-drive=google`; may be repeated.
    #[arg(long = "map", value_name = "THEIRS=OURS")]
    renamed: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// Import lines, or an export of Attaché's.
    Attache,
    /// Connections with their credentials, as Nango's API shows them.
    Nango,
}

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    target: Target,
    /// Of this provider alone.
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// The tokens in clear: whoever reads the output can act as your users. Only on the store itself, while no server runs.
    #[arg(long)]
    plain: bool,
}

const PAGE: &str = "100";

pub(super) fn run(verb: ConnectionsVerb) -> Outcome {
    let lines = match &verb {
        ConnectionsVerb::Import(args) => read_lines(args)?,
        _ => Vec::new(),
    };
    api::block_on(async {
        let target = match &verb {
            ConnectionsVerb::List(args) => &args.target,
            ConnectionsVerb::Show(args) | ConnectionsVerb::Refresh(args) | ConnectionsVerb::Delete(args) => &args.target,
            ConnectionsVerb::Import(args) => &args.target,
            ConnectionsVerb::Export(args) => &args.target,
        };
        let api = Api::open(target).await?;
        let outcome = match &verb {
            ConnectionsVerb::List(args) => list(&api, args).await,
            ConnectionsVerb::Show(args) => one(&api, args, &Method::GET, "").await.and_then(|shown| print(&format!("{shown:#}\n"))),
            ConnectionsVerb::Refresh(args) => one(&api, args, &Method::POST, "/refresh").await.and_then(|shown| refreshed(&shown)),
            ConnectionsVerb::Delete(args) => one(&api, args, &Method::DELETE, "").await.and_then(|told| deleted(&told)),
            ConnectionsVerb::Import(args) => import(&api, lines, &args.file).await,
            ConnectionsVerb::Export(args) if args.plain => export_plain(&api, args).await,
            ConnectionsVerb::Export(args) => export(&api, args).await,
        };
        let closed = api.close().await;
        outcome.and(closed)
    })
}

async fn one(api: &Api, args: &OneArgs, method: &Method, tail: &str) -> Result<Value, Failure> {
    let answer = api.call(method, &connection_path(&args.provider, &args.end_user, &args.account, tail), None).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(Failure::runtime("no such connection: `attache connections list` shows them"));
    }
    answer.ok()
}

fn refreshed(shown: &Value) -> Outcome {
    print(&format!("refreshed; the new token ends {}\n", shown["expires_at"].as_str().unwrap_or("never")))
}

fn deleted(told: &Value) -> Outcome {
    print(&format!("deleted; revoked at the provider: {} ({})\n", member(told, "revoked"), member(told, "detail")))
}

/// Every page of a list, each handed on as it comes.
async fn pages(api: &Api, path: &str, pairs: &[(&str, Option<&str>)], mut each: impl FnMut(&[Value]) -> Outcome) -> Outcome {
    let mut cursor: Option<String> = None;
    loop {
        let mut all = pairs.to_vec();
        all.extend([("limit", Some(PAGE)), ("cursor", cursor.as_deref())]);
        let page = api.get(&format!("{path}{}", query(&all))).await?.ok()?;
        each(page["items"].as_array().map(Vec::as_slice).unwrap_or_default())?;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

async fn list(api: &Api, args: &ListArgs) -> Outcome {
    let pairs = [("provider", args.provider.as_deref()), ("end_user", args.end_user.as_deref()), ("state", args.state.as_deref())];
    let row = |item: &Value| {
        let columns = format!(
            "{:<26} {:<14} {:<32} {:<10} {:<18}",
            member(item, "id"),
            member(item, "provider"),
            member(item, "end_user"),
            member(item, "account"),
            member(item, "state")
        );
        format!("{columns} {}\n", item["expires_at"].as_str().unwrap_or("never"))
    };
    pages(api, "/v1/connections", &pairs, |items| {
        print(&items.iter().map(|item| if args.json { format!("{item}\n") } else { row(item) }).collect::<String>())
    })
    .await
}

async fn export(api: &Api, args: &ExportArgs) -> Outcome {
    pages(api, "/v1/connections/export", &[("provider", args.provider.as_deref())], |items| {
        print(&items.iter().map(|item| format!("{item}\n")).collect::<String>())
    })
    .await
}

async fn export_plain(api: &Api, args: &ExportArgs) -> Outcome {
    let Api::Here(offline) = api else {
        return Err(Failure::usage(
            "attache: --plain reads the store itself: stop the server first, or export sealed lines, which need no stop",
        ));
    };
    eprintln!("attache: what follows holds tokens in clear; keep it off disks and screens that others see");
    let mut after = None;
    loop {
        let page = offline.connections(args.provider.as_deref(), after.as_ref(), 500).await.map_err(Failure::runtime)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key.clone());
        let lines = Zeroizing::new(page.iter().map(|connection| format!("{}\n", wire::import_line(connection))).collect::<String>());
        print(&lines)?;
    }
}

/// A line's number, and its members or what is wrong with it.
type Parsed = (usize, Result<Map<String, Value>, String>);

/// One line that was read: where it stood, and its members.
struct Line {
    number: usize,
    fields: Map<String, Value>,
}

/// Parses and checks every line first, so that a bad one stores nothing.
fn read_lines(args: &ImportArgs) -> Result<Vec<Line>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(&args.file).and_then(|mut open| open.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", args.file.display())))?;
    let renamed = |id: &str| renamed(&args.renamed, id);
    let parsed: Vec<Parsed> = match args.from {
        Source::Attache => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            lines.map(|(number, line)| (number + 1, attache_line(line, renamed))).collect()
        }
        Source::Nango => {
            let all = nango::connections(&text).map_err(|why| Failure::Usage(format!("{}: {why}", args.file.display())))?;
            all.iter().enumerate().map(|(number, connection)| (number + 1, nango::import_line(connection, renamed))).collect()
        }
    };
    let (mut lines, mut faults) = (Vec::new(), String::new());
    for (number, parsed) in parsed {
        match parsed.and_then(check_line) {
            Ok(fields) => lines.push(Line { number, fields }),
            // Writing to a String cannot fail.
            Err(why) => drop(writeln!(faults, "{}:{number}: {why}", args.file.display())),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(Failure::Usage(format!("{faults}nothing was imported"))) }
}

fn attache_line(line: &str, renamed: impl Fn(&str) -> String) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON (column {})", error.column()))?;
    let Value::Object(mut fields) = value else { return Err("expected a JSON object".to_owned()) };
    if let Some(Value::String(provider)) = fields.get_mut("provider") {
        *provider = renamed(provider);
    }
    Ok(fields)
}

/// What can be known without the store: the line's shape. A sealed one is opened by whoever has the key.
fn check_line(fields: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if fields.contains_key("sealed") {
        let named = |name: &str| fields.get(name).and_then(Value::as_str).is_some();
        return if named("provider") && named("end_user") && named("sealed") {
            Ok(fields)
        } else {
            Err("a sealed line needs `provider`, `end_user` and `sealed`".to_owned())
        };
    }
    wire::parse_line(fields.clone(), SystemClock.now())?;
    Ok(fields)
}

fn renamed(pairs: &[String], id: &str) -> String {
    let pair = pairs.iter().filter_map(|pair| pair.split_once('=')).find(|(theirs, _)| *theirs == id);
    pair.map_or(id, |(_, ours)| ours).to_owned()
}

/// Lines on their way at once.
const IMPORTS_AT_ONCE: usize = 64;

async fn import(api: &Api, lines: Vec<Line>, file: &std::path::Path) -> Outcome {
    let known = api.get("/v1/providers").await?.ok()?;
    let known: Vec<&str> = known["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()).collect();
    let mut faults = String::new();
    for Line { number, fields } in &lines {
        let provider = fields.get("provider").and_then(Value::as_str).unwrap_or_default();
        if !known.contains(&provider) {
            let hint =
                crate::config::error::did_you_mean(provider, known.iter().copied()).map(|hint| format!("; {hint}")).unwrap_or_default();
            // As above.
            let _ = writeln!(faults, "{}:{number}: provider `{provider}` is not in routes.yaml{hint}", file.display());
        }
    }
    if !faults.is_empty() {
        return Err(Failure::Usage(format!("{faults}nothing was imported")));
    }
    let (mut new, mut replaced, total) = (0usize, 0usize, lines.len());
    let lines: Vec<_> = lines.into_iter().map(|line| (target(&line.fields), line)).collect();
    let distinct: HashSet<&str> = lines.iter().map(|(target, _)| target.as_str()).collect();
    // Many writes share one sync of the disk. Of two lines for one connection the later one counts.
    let at_once = if distinct.len() == total { IMPORTS_AT_ONCE } else { 1 };
    let mut calls = stream::iter(&lines)
        .map(|(target, Line { number, fields })| async move { (number, api.call(&Method::PUT, target, Some(&json!(fields))).await) })
        .buffered(at_once);
    while let Some((number, answer)) = calls.next().await {
        let answer = answer?;
        match answer.status {
            StatusCode::CREATED => new += 1,
            StatusCode::OK => replaced += 1,
            _ => {
                let done = new + replaced;
                let (Failure::Usage(why) | Failure::Runtime(why)) = answer.failure();
                return Err(Failure::runtime(format!(
                    "{}:{number}: {why}\n{done} of {total} lines were imported before it; importing the same lines again is safe",
                    file.display()
                )));
            }
        }
    }
    print(&format!("imported {new} new connections, replaced the tokens of {replaced}\n"))
}

/// Where a line's connection is in the API.
fn target(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let account = Some(text("account")).filter(|account| !account.is_empty()).unwrap_or(DEFAULT_ACCOUNT);
    connection_path(text("provider"), text("end_user"), account, "")
}

fn member<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}
