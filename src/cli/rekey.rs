//! `attache rekey`: every record sealed anew with the first encryption key, through the running server or on the store while none runs.

use super::api::{Api, Target, query};
use super::{Failure, Outcome, print};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::time::Duration;

/// How many records go at a time.
const LIMIT: &str = "100";

#[derive(Args)]
pub(super) struct RekeyArgs {
    #[command(flatten)]
    target: Target,
    /// How many records a second at most, so that the server's own writes have the disk too.
    #[arg(long, value_name = "RECORDS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

pub(super) fn run(args: &RekeyArgs) -> Outcome {
    super::api::block_on(async {
        let api = Api::open(&args.target).await?;
        let outcome = rekey(&api, args.rate).await;
        let closed = api.close().await;
        outcome.and(closed)
    })
}

async fn rekey(api: &Api, rate: u32) -> Outcome {
    // A session under way is known by its version, and sealing it anew would end it; so a server's are left to end by themselves.
    let serves = matches!(api, Api::Server(_));
    let kinds: &[&str] = if serves { &["connections", "intents", "outbox"] } else { &["connections", "intents", "outbox", "sessions"] };
    for kind in kinds {
        let (mut cursor, mut resealed, mut left): (Option<String>, u64, u64) = (None, 0, 0);
        loop {
            let asked = query(&[("kind", Some(kind)), ("limit", Some(LIMIT)), ("cursor", cursor.as_deref())]);
            let page = api.call(&Method::POST, &format!("/v1/store/rekey{asked}"), None).await?.ok()?;
            let now = page["resealed"].as_u64().unwrap_or_default();
            resealed += now;
            left += page["left"].as_u64().unwrap_or_default();
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
            tokio::time::sleep(Duration::from_secs(now) / rate).await;
        }
        if resealed + left > 0 {
            print(&format!("{kind}: {resealed} sealed anew, {left} had the first key already\n"))?;
        }
    }
    conclude(&api.get("/v1/store/check").await?.ok()?)
}

/// What is left to do, by what the store holds now.
fn conclude(told: &Value) -> Outcome {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let needed = told["rekey_needed"].as_object().into_iter().flatten();
    let (mut sessions, mut others) = (0, 0);
    for (kind, records) in needed {
        *(if kind == "sessions" { &mut sessions } else { &mut others }) += count(records);
    }
    let faults = count(&told["faults_total"]);
    if faults > 0 {
        return Err(Failure::runtime(format!("{faults} records do not open and stay as they are: `attache store check` tells which")));
    }
    if others > 0 {
        return Err(Failure::runtime(format!("{others} records are not sealed with the first key yet: run this once more")));
    }
    let first = told["first_key"].as_str().unwrap_or_default();
    if sessions > 0 {
        return print(&format!(
            "all but {sessions} connect sessions are sealed with {first}. Sessions end by themselves (`connect.session_ttl`): keep the old key until \
             `attache store check` counts none\n"
        ));
    }
    print(&format!("every record is sealed with {first}: no record needs another key, which may be taken out of the config\n"))
}
