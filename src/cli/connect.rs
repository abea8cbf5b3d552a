//! `attache connect`: one end user, from this terminal. The browser flow comes back to a listener on loopback (RFC 8252): the running server's
//! public one, or one of this process's own; `--device` shows a code instead (RFC 8628).

use super::api::{self, Api, Target, connection_path};
use super::{Failure, Outcome, print};
use crate::base::ids::DEFAULT_ACCOUNT;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct ConnectArgs {
    #[command(flatten)]
    target: Target,
    /// The provider, by its name in routes.yaml.
    provider: String,
    /// Who connects: the name that calls have in `X-End-User`.
    #[arg(long, value_name = "NAME", visible_alias = "user")]
    end_user: String,
    #[arg(long, value_name = "LABEL", default_value = DEFAULT_ACCOUNT)]
    account: String,
    /// Show a code to type in any browser, instead of opening one here.
    #[arg(long)]
    device: bool,
    /// Ask for this scope instead of those of the registration; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Print the link and open no browser.
    #[arg(long)]
    no_browser: bool,
}

pub(super) fn run(args: &ConnectArgs) -> Outcome {
    api::block_on(async {
        let api = Api::open(&args.target).await?;
        let outcome = connect(&api, args).await;
        let closed = api.close().await;
        outcome.and(closed)
    })
}

async fn connect(api: &Api, args: &ConnectArgs) -> Outcome {
    let mut body = json!({"end_user": args.end_user, "account": args.account});
    if !args.scopes.is_empty() {
        body["scopes"] = json!(args.scopes);
    }
    let state = if args.device { by_code(api, args, body).await? } else { by_browser(api, args, body).await? };
    match state.as_str() {
        "connected" => connected(api, args).await,
        "denied" => Err(Failure::runtime("the end user said no at the provider: nothing was connected")),
        "expired" | "gone" => Err(Failure::runtime("nobody came in time: run it again for a new link")),
        _ => Err(Failure::runtime("the provider did not complete the connection; the log of Attaché says why")),
    }
}

async fn by_browser(api: &Api, args: &ConnectArgs, mut body: Value) -> Result<String, Failure> {
    if let Api::Here(offline) = api {
        offline.serve_pages().map_err(Failure::runtime)?;
    }
    body["providers"] = json!([args.provider]);
    let session = api.call(&Method::POST, "/v1/connect-sessions", Some(&body)).await?.ok()?;
    let (link, id) = (text(&session, "connect_url"), text(&session, "session"));
    print(&format!("Open this link to connect {} to {}:\n\n  {link}\n\nWaiting …\n", args.end_user, args.provider))?;
    if !args.no_browser && std::io::stdout().is_terminal() {
        // A machine without a browser is no fault: the link is there to be opened elsewhere.
        let _ = open::that_detached(&link);
    }
    watch(api, &format!("/v1/connect-sessions/{id}"), &["open", "begun"]).await
}

async fn by_code(api: &Api, args: &ConnectArgs, mut body: Value) -> Result<String, Failure> {
    body["provider"] = json!(args.provider);
    let session = api.call(&Method::POST, "/v1/device-sessions", Some(&body)).await?.ok()?;
    let mut told = format!(
        "To connect {} to {}, open\n\n  {}\n\nand enter the code\n\n  {}\n\n",
        args.end_user,
        args.provider,
        text(&session, "verification_uri"),
        text(&session, "user_code")
    );
    if let Some(whole) = session["verification_uri_complete"].as_str() {
        // Writing to a String cannot fail.
        let _ = write!(told, "or open this, and check that it shows the same code:\n\n  {whole}\n\n");
    }
    print(&format!("{told}Waiting …\n"))?;
    watch(api, &format!("/v1/device-sessions/{}", text(&session, "id")), &["pending"]).await
}

/// Looks until the session's state is none of these.
async fn watch(api: &Api, target: &str, going_on: &[&str]) -> Result<String, Failure> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let answer = api.get(target).await?;
        if answer.status == http::StatusCode::NOT_FOUND {
            return Ok("gone".to_owned());
        }
        let state = text(&answer.ok()?, "state");
        if !going_on.contains(&state.as_str()) {
            return Ok(state);
        }
    }
}

async fn connected(api: &Api, args: &ConnectArgs) -> Outcome {
    // A token that may only connect cannot look at what it made.
    let shown = api.get(&connection_path(&args.provider, &args.end_user, &args.account, "")).await?.ok().unwrap_or(Value::Null);
    let mut told = format!("Connected {} to {}", args.end_user, args.provider);
    if let Some(id) = shown["id"].as_str() {
        let _ = write!(told, " ({id})");
    }
    told.push('\n');
    let missing: Vec<_> = shown["missing_scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !missing.is_empty() {
        let _ = writeln!(told, "not granted though asked for: {}", missing.join(" "));
    }
    print(&told)
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}
