//! `attache providers`: the definitions that routes.yaml can name.

use super::{ConfigArg, Failure, Outcome, print};
use crate::config::Definition;
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand)]
pub(super) enum ProvidersVerb {
    /// A line for each provider: its id, name, category, how one connects to it, and how far its facts were checked.
    List {
        #[command(flatten)]
        config: ConfigArg,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// One provider's definition as YAML: what a file in `providers/` may override.
    Show {
        id: String,
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub(super) fn run(verb: ProvidersVerb) -> Outcome {
    let (ProvidersVerb::List { config, .. } | ProvidersVerb::Show { config, .. }) = &verb;
    let folder = config.config.with_file_name("providers");
    let known = crate::config::definitions(&folder, &super::environment).map_err(Failure::usage)?;
    match verb {
        ProvidersVerb::List { json: true, .. } => print(&known.iter().map(json_line).collect::<String>()),
        ProvidersVerb::List { .. } => print(&table(&known)),
        ProvidersVerb::Show { id, .. } => match known.iter().find(|provider| *provider.id == *id) {
            Some(provider) => print(&provider.text),
            None => Err(Failure::Usage(format!("no provider `{id}`; `attache providers list` shows them"))),
        },
    }
}

fn json_line(provider: &Definition) -> String {
    let inputs: Vec<&str> = provider.inputs.iter().map(|input| &*input.name).collect();
    let line = json!({
        "id": provider.id, "display_name": provider.display_name, "category": provider.category, "modes": provider.modes,
        "inputs": inputs, "verified": provider.verified.word(), "built_in": provider.file.is_none(), "warnings": provider.warnings,
    });
    format!("{line}\n")
}

/// Columns as wide as their widest word.
fn table(known: &[Definition]) -> String {
    let head = ["ID", "NAME", "CATEGORY", "MODES", "VERIFIED"].map(str::to_owned);
    let row = |provider: &Definition| {
        [
            provider.id.to_string(),
            provider.display_name.to_string(),
            provider.category.to_string(),
            provider.modes.join(","),
            provider.verified.word().to_owned(),
        ]
    };
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(known.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>().join("  ");
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}
