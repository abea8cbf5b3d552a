//! `attache store repair`: what can be salvaged, and what is lost.

use super::backup::no_server;
use super::{RepairArgs, failure, spec_of};
use crate::app::store::{self, RepairPlan, Repaired};
use crate::base::clock::{Clock, SystemClock};
use crate::cli::{Failure, Outcome, print};
use crate::store::Kind;
use std::fmt::Write;

pub(super) async fn run(args: &RepairArgs) -> Outcome {
    no_server(&args.config).await?;
    let plan = RepairPlan { write: args.yes, drop_unopened: args.drop_unopened, compare: args.compare.clone() };
    let Some(done) = store::repair(&spec_of(&args.config)?, plan, SystemClock.now()).await.map_err(failure)? else {
        return print("the store is whole: there is nothing to repair\n");
    };
    print(&text(&done))?;
    match &done.aside {
        Some(aside) => print(&format!("done: a new store is in place; the old one is kept as {}\n", aside.display())),
        None => {
            Err(Failure::runtime("nothing was changed: `attache store repair --yes` makes the new store and keeps the old one beside it"))
        }
    }
}

fn text(done: &Repaired) -> String {
    let mut text = String::new();
    // Writing into a text cannot fail.
    let _ = match &done.refusal {
        Some(why) => writeln!(text, "refused      {why}"),
        None => writeln!(text, "refused      the store opens, but not all of its records do"),
    };
    let count = |kind: Kind| done.kept.get(&kind).copied().unwrap_or(0);
    for kind in Kind::ALL {
        let must = done.expected.as_ref().map(|(counts, _)| counts.get(&kind).copied().unwrap_or(0));
        let kept = count(kind);
        let line = match must {
            Some(must) if must > kept => format!("{kept} of {must} {} can be kept: {} are lost", kind.name(), must - kept),
            Some(_) if kept == 0 => continue,
            _ => format!("{kept} {} can be kept", kind.name()),
        };
        let _ = writeln!(text, "salvaged     {line}");
    }
    if done.expected.is_none() {
        text.push_str("unknown      nothing tells how many records there must be: some may be lost without a trace\n");
    }
    if let Some((_, last)) = &done.expected
        && done.found_write.is_some_and(|found| found < *last)
    {
        let found = done.found_write.unwrap_or_default();
        let _ = writeln!(text, "older        the newest write that was found is number {found} of {last}: what was written later is lost");
    }
    for kind in &done.broken_off {
        let _ = writeln!(text, "broken off   the {} could not be read to their end", kind.name());
    }
    for fault in &done.dropped {
        let _ = writeln!(text, "lost         {} ({}): {}", fault.record, fault.kind.name(), fault.why);
    }
    for name in done.missing.iter().flatten() {
        let _ = writeln!(text, "missing      {name}: in the backup, and lost or deleted since");
    }
    if !done.is_exact {
        text.push_str(
            "in doubt     a connection may be in an older form than its last: if its refresh token was used since, its provider refuses it and the end user connects anew. \
             Which connections are gone can be told by comparing `attache connections list` with your app's own records, or by --compare with a backup\n",
        );
    }
    text
}
