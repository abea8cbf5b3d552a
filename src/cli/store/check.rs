//! `attache store check`: what the store holds, and what of it does not open.

use super::{CheckArgs, failure, spec_of};
use crate::app;
use crate::cli::api::Api;
use crate::cli::{Failure, Outcome, print};
use serde_json::Value;
use std::fmt::Write;

pub(super) async fn run(args: &CheckArgs) -> Outcome {
    // Whoever has the store open is asked; else a copy of it is looked at.
    let told = match Api::server(&args.target).await? {
        Some(api) => api.get("/v1/store/check").await?.ok()?,
        None => app::store::check(&spec_of(&args.target.config)?).await.map_err(failure)?.to_json(),
    };
    print(&if args.json { format!("{told:#}\n") } else { text(&told) })?;
    match told["faults_total"].as_u64() {
        Some(0) => Ok(()),
        count => Err(Failure::runtime(format!(
            "{} records do not open. A missing key is added to `store.encryption_keys`, after the first; a newer version is run; a damaged record is \
             left out by `attache store repair`, or restored with `attache store restore`",
            count.unwrap_or_default()
        ))),
    }
}

fn text(told: &Value) -> String {
    let mut text = String::new();
    let counts = |counts: &Value| -> String {
        let each = counts.as_object().into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
        let told: Vec<_> = each.map(|(name, count)| format!("{count} {name}")).collect();
        if told.is_empty() { "none".to_owned() } else { told.join(", ") }
    };
    // Writing into a text cannot fail.
    let _ = writeln!(text, "records      {}", counts(&told["records"]));
    let _ = writeln!(text, "connections  {}", counts(&told["states"]));
    for key in told["keys"].as_array().into_iter().flatten() {
        let first = if key["first"] == true { ", which is the first" } else { "" };
        let _ = writeln!(text, "sealed       {} by the key {}{first}", key["records"], key["key"].as_str().unwrap_or_default());
    }
    let rekey = counts(&told["rekey_needed"]);
    if rekey != "none" {
        let _ = writeln!(text, "rekey        {rekey} are not sealed with the first key: `attache rekey`");
    }
    let faults = told["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
    for fault in faults {
        let word = |name: &str| fault[name].as_str().unwrap_or_default();
        let _ = writeln!(text, "{:<12} {} ({}): {}", word("flaw"), word("record"), word("kind"), word("why"));
    }
    let more = told["faults_total"].as_u64().unwrap_or_default().saturating_sub(faults.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "and {more} more that do not open");
    }
    if told["whole"] == true {
        text.push_str("every record opens\n");
    }
    text
}
