//! `attache explain`: what a call would become, from the config alone.

use super::{ConfigArg, Failure, Outcome, print};
use crate::proxy::explain::explain;
use clap::Args;
use http::Method;

#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The call's method, as in `GET`.
    method: Method,
    /// The URL or path that the client app calls, as in `/photos/google` or `http://localhost:7070/photos/google`.
    url: String,
    /// The end user it is made for.
    #[arg(long, value_name = "NAME")]
    end_user: Option<String>,
}

pub(super) fn run(args: &ExplainArgs) -> Outcome {
    let snapshot = crate::config::load(&args.config.config, &super::environment).map_err(Failure::usage)?;
    let explained = explain(&snapshot, &args.method, &args.url).map_err(Failure::usage)?;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<&str>| lines.extend(value.map(|value| format!("{name:<10} {value}\n")));
    line("route", explained.route.as_deref());
    line("match", explained.matches.as_deref());
    line("provider", explained.provider.as_deref());
    line("upstream", explained.upstream_url.as_deref());
    line("attach", explained.attach.as_deref());
    line("as", explained.act_as);
    line("end user", args.end_user.as_deref());
    if let Some((name, detail)) = &explained.refused {
        line("refused", Some(&format!("{name}: {detail}")));
    }
    print(&lines.concat())?;
    match explained.refused {
        Some(_) => Err(Failure::Runtime("the call would be refused".to_owned())),
        None => Ok(()),
    }
}
