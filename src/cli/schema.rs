//! `attache schema`: the documents that are made of the code, for editors and API clients.

use super::{Outcome, print};
use clap::{Args, ValueEnum};

#[derive(Args)]
pub(super) struct SchemaArgs {
    /// Which one.
    #[arg(value_enum, default_value_t = Document::Config)]
    document: Document,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Document {
    /// The JSON Schema of routes.yaml.
    Config,
    /// The JSON Schema of a provider definition.
    Provider,
    /// The OpenAPI 3.1 document of the admin API.
    Openapi,
}

pub(super) fn run(args: &SchemaArgs) -> Outcome {
    let document = match args.document {
        Document::Config => crate::config::schema(),
        Document::Provider => crate::config::definition_schema(),
        Document::Openapi => crate::server::admin::openapi::document(),
    };
    print(&format!("{document:#}\n"))
}
