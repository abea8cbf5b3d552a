//! `attache notify test`: a test notice to everyone in `notify`, at once and without a server.

use super::{ConfigArg, Failure, Outcome, print};
use crate::base::clock::{Clock, SystemClock};
use crate::notices::{Delivered, deliver_now};
use crate::upstream::{Fetch, TlsRoots};
use clap::Subcommand;
use std::fmt::Write;

#[derive(Subcommand)]
pub(super) enum NotifyVerb {
    /// Send a test notice to each webhook and program of the config's `notify`, and tell who took it.
    Test(ConfigArg),
}

pub(super) fn run(verb: &NotifyVerb) -> Outcome {
    let NotifyVerb::Test(config) = verb;
    let snapshot = crate::config::load(&config.config, &super::environment).map_err(Failure::usage)?;
    if snapshot.notify.is_empty() {
        return Err(Failure::usage("the config names nobody in `notify`"));
    }
    super::api::block_on(async {
        let fetch = Fetch::new(TlsRoots::system());
        let (mut text, mut refused) = (String::new(), 0);
        for target in &*snapshot.notify {
            // Writing to a String cannot fail.
            let _ = match deliver_now(&fetch, target, SystemClock.now()).await {
                Delivered::Yes => writeln!(text, "{}: delivered", target.name()),
                Delivered::No { why, .. } => {
                    refused += 1;
                    writeln!(text, "{}: {why}", target.name())
                }
            };
        }
        print(&text)?;
        match refused {
            0 => Ok(()),
            _ => Err(Failure::runtime(format!("{refused} of {} did not take the notice", snapshot.notify.len()))),
        }
    })
}
