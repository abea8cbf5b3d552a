//! `attache providers`: the definitions that routes.yaml can name.

use super::{ConfigArg, Failure, Outcome, print};
use crate::config::Definition;
use crate::provider::Verified;
use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum ProvidersVerb {
    /// A line for each provider: its id, name and category.
    List(ConfigArg),
    /// One provider's definition as YAML: what a file in `providers/` may override.
    Show {
        id: String,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub(super) fn run(verb: ProvidersVerb) -> Outcome {
    let (ProvidersVerb::List(config) | ProvidersVerb::Show { config, .. }) = &verb;
    let folder = config.config.with_file_name("providers");
    let known = crate::config::definitions(&folder, &super::environment).map_err(Failure::usage)?;
    match verb {
        ProvidersVerb::List(_) => {
            let line = |provider: &Definition| {
                let thin = if provider.verified == Verified::Partial { "  (facts partly verified)" } else { "" };
                format!("{:<14} {:<24} {}{thin}\n", provider.id, provider.display_name, provider.category)
            };
            print(&known.iter().map(line).collect::<String>())
        }
        ProvidersVerb::Show { id, .. } => match known.iter().find(|provider| *provider.id == *id) {
            Some(provider) => print(&provider.text),
            None => Err(Failure::Usage(format!("no provider `{id}`; `attache providers list` shows them"))),
        },
    }
}
