//! Floor 8: the command line, one file a verb. Exit codes: 0, 1 for a failure at run time, 2 for wrong usage or config.

mod api;
mod check;
mod connect;
mod connections;
mod dev;
mod explain;
mod health;
mod keygen;
mod logging;
mod nango;
mod notify;
mod providers;
mod rekey;
mod run;
mod sandbox;
mod schema;
mod store;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

/// The sidecar that attaches tokens: your app sends plain HTTP to localhost, Attaché adds the end user's OAuth token and forwards it.
///
/// First steps:
///   attache dev      a sandbox provider, a connected user and a running proxy: paste the curl lines that it prints
///   attache check    tells what is wrong with routes.yaml, all at once
///   attache run      the proxy, by routes.yaml
#[derive(Parser)]
#[command(name = "attache", version, about, long_about = None, verbatim_doc_comment, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    /// How log lines look: `text` for people, `json` for machines. What is logged is chosen by RUST_LOG (`info`, `attache=debug`, …).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where the config is.
#[derive(Args, Clone)]
struct ConfigArg {
    /// The route map. Paths inside it are relative to its folder.
    #[arg(short, long, value_name = "FILE", default_value = "routes.yaml", env = "ATTACHE_CONFIG")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the proxy by routes.yaml. Edits go live without a restart; SIGHUP reloads at once; SIGTERM drains.
    Run(run::RunArgs),
    /// Check routes.yaml and the provider files, and tell every error with its line and the nearest known name.
    Check(ConfigArg),
    /// Tell what a call would become: its route, provider, upstream URL and how the token is attached. Calls nothing.
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of routes.yaml, for editors; or another document that is made of the code.
    Schema(schema::SchemaArgs),
    /// List the providers that can be named in routes.yaml, or show one.
    #[command(subcommand)]
    Providers(providers::ProvidersVerb),
    /// Connect an end user from this terminal: a browser opens at the provider, or, with --device, a code is to be typed anywhere.
    Connect(connect::ConnectArgs),
    /// List, show, refresh, delete, import or export connections: through the running server, or on the store while none runs.
    #[command(subcommand)]
    Connections(connections::ConnectionsVerb),
    /// Print a new encryption key for `store.encryption_keys` (base64 of 32 random bytes).
    Keygen,
    /// Seal every record anew with the first of `store.encryption_keys`, so that the others can be taken out: through the running server, or on
    /// the store while none runs. May be broken off and run again at any time.
    Rekey(rekey::RekeyArgs),
    /// Check, repair, back up, restore or copy the token store.
    #[command(subcommand)]
    Store(store::StoreVerb),
    /// Run a provider of Attaché's own on loopback: a real authorization server and a photo API, for development and tests.
    Sandbox(sandbox::SandboxArgs),
    /// The first thing to run: the sandbox and the proxy, with megan@personalemail.com already connected, in a temporary folder.
    Dev(dev::DevArgs),
    /// Ask a running Attaché whether it is ready: for container health checks.
    Health(health::HealthArgs),
    /// Try the notices out.
    #[command(subcommand)]
    Notify(notify::NotifyVerb),
    /// Print a completion script, as in `source <(attache completions bash)`.
    Completions { shell: clap_complete::Shell },
}

/// Why a verb ended early.
#[derive(Debug)]
enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Runtime(String),
}

impl Failure {
    fn usage(error: impl Display) -> Self {
        Failure::Usage(error.to_string())
    }

    fn runtime(error: impl Display) -> Self {
        Failure::Runtime(error.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// Parses the process's arguments and runs the verb.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end with 0, wrong usage with 2, as clap itself does it. A closed output is nobody's fault.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let serves = matches!(cli.verb, Verb::Run(_) | Verb::Dev(_) | Verb::Sandbox(_));
    let _log = logging::start(cli.log_format, serves);
    let outcome = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::run(&args.config),
        Verb::Explain(args) => explain::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Providers(verb) => providers::run(verb),
        Verb::Connect(args) => connect::run(&args),
        Verb::Connections(verb) => connections::run(verb),
        Verb::Keygen => keygen::run(),
        Verb::Notify(verb) => notify::run(&verb),
        Verb::Rekey(args) => rekey::run(&args),
        Verb::Store(verb) => store::run(verb),
        Verb::Sandbox(args) => sandbox::run(&args),
        Verb::Dev(args) => dev::run(&args),
        Verb::Health(args) => health::run(&args),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "attache", &mut std::io::stdout());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Runtime(why)) => {
            eprintln!("attache: {why}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(why)) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Writes to standard output; a reader that has gone away (`attache schema | head`) is no failure.
fn print(text: &str) -> Outcome {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::runtime(error)),
        _ => Ok(()),
    }
}

/// The environment as config interpolation sees it.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
