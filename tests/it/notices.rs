//! Notices as their receivers meet them: signed, told once a change, kept over a restart, and never with a token.

use crate::harness::{MEGAN, Plan, World};
use crate::process::run;
use crate::upstream::{Reply, Seen, Upstream};
use crate::wire::until;
use attache::sandbox::FailToken;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn plan(receiver: &Upstream, events: &str) -> Plan {
    let url = format!("http://{}/attache?from=printpixie", receiver.address);
    Plan::new().on_disk().top(&format!("notify:\n  - {{webhook: '{url}', secret: {SECRET}{events}}}\n"))
}

/// The notice's body, after its signature was checked by the receiver's own reckoning.
fn opened(seen: &Seen) -> Value {
    let body = String::from_utf8(seen.body.clone()).expect("text");
    let signed = format!("{}.{}.{body}", seen.header("webhook-id"), seen.header("webhook-timestamp"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&SECRET[6..]).expect("base64"));
    assert_eq!(seen.header("webhook-signature"), format!("v1,{}", STANDARD.encode(hmac::sign(&key, signed.as_bytes()))));
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.header("content-type")),
        ("POST", "/attache?from=printpixie", "application/json")
    );
    serde_json::from_str(&body).expect("JSON")
}

fn types(receiver: &Upstream) -> Vec<String> {
    receiver.seen().iter().map(|seen| opened(seen)["type"].as_str().expect("a type").to_owned()).collect()
}

async fn put(world: &World) {
    let grant = world.sandbox.issue_grant(MEGAN, &["photos.read"]).expect("a client");
    let line = json!({
        "access_token": grant.access_token.expose(), "refresh_token": grant.refresh_token.expect("one").expose(), "expires_at": "2026-01-01T00:00:10Z",
    });
    let answer = world.admin_json("PUT", &format!("/v1/connections/sandbox/{MEGAN}"), &line).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

#[tokio::test]
async fn a_connections_life_is_told_once_a_change() {
    let receiver = Upstream::plain().await;
    let world = plan(&receiver, "").start().await;
    put(&world).await;
    until("it is told", async || receiver.seen().len() == 1).await;
    assert_eq!(world.sandbox.revoke_user(MEGAN), 1);
    world.clock.advance(Duration::from_secs(3600));
    for _ in 0..3 {
        assert_eq!(world.get("/photos").await.status, 401);
    }
    until("its end is told", async || receiver.seen().len() == 2).await;
    world.admin("DELETE", &format!("/v1/connections/sandbox/{MEGAN}")).await.is_ok();
    until("its deletion is told", async || receiver.seen().len() == 3).await;
    let told: Vec<Value> = receiver.seen().iter().map(opened).collect();
    let names: Vec<&str> = told.iter().map(|told| told["type"].as_str().expect("a type")).collect();
    assert_eq!(names, ["connection.created", "connection.reconnect_required", "connection.deleted"]);
    for told in &told {
        let data = &told["data"];
        assert_eq!((&data["provider"], &data["end_user"], &data["account"]), (&json!("sandbox"), &json!(MEGAN), &json!("default")));
        assert_eq!(data["id"], told["data"]["id"]);
    }
    assert_eq!((&told[0]["data"]["state"], &told[1]["data"]["state"]), (&json!("active"), &json!("reconnect_required")));
    assert!(told[1]["data"]["last_error"].as_str().is_some_and(|why| !why.is_empty()));
    let bytes = receiver.bytes();
    assert!(!bytes.contains("sat_") && !bytes.contains("srt_") && !bytes.contains("access_token"), "{bytes}");
}

#[tokio::test]
async fn what_was_not_taken_outlives_a_restart_and_keeps_its_id() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let receiver = Upstream::start(move |_| match is_up.load(Ordering::Relaxed) {
        true => Reply::ok("", "ok"),
        false => Reply::Keep(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()),
    })
    .await;
    let world = plan(&receiver, "").start().await;
    put(&world).await;
    until("it was tried", async || receiver.seen().len() == 1).await;
    up.store(true, Ordering::Relaxed);
    world.clock.advance(Duration::from_secs(6));
    let world = world.restart().await;
    until("it is told", async || receiver.seen().len() == 2).await;
    let seen = receiver.seen();
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
    assert_eq!(seen[0].body, seen[1].body);
    assert_ne!(seen[0].header("webhook-timestamp"), seen[1].header("webhook-timestamp"), "of the sending, or receivers refuse it as old");
    // Delivered is delivered.
    world.clock.advance(Duration::from_secs(3600));
    let world = world.restart().await;
    world.admin("DELETE", &format!("/v1/connections/sandbox/{MEGAN}")).await.is_ok();
    until("the next one is told", async || receiver.seen().len() == 3).await;
    assert_eq!(types(&receiver), ["connection.created", "connection.created", "connection.deleted"]);
}

#[tokio::test]
async fn refreshes_that_fail_on_are_told_once_and_so_is_their_end() {
    let receiver = Upstream::plain().await;
    let world = plan(&receiver, ", events: [refresh.failing, refresh.recovered]").start().await;
    put(&world).await;
    let failure = FailToken { status: 503, content_type: "application/json".into(), body: "{}".into(), retry_after: None, times: None };
    world.sandbox.change(|settings| settings.fail_token = Some(failure));
    for _ in 0..6 {
        world.clock.advance(Duration::from_secs(400));
        world.admin("POST", &format!("/v1/connections/sandbox/{MEGAN}/refresh")).await;
    }
    world.sandbox.change(|settings| settings.fail_token = None);
    world.clock.advance(Duration::from_secs(400));
    world.admin("POST", &format!("/v1/connections/sandbox/{MEGAN}/refresh")).await.is_ok();
    until("both are told", async || receiver.seen().len() >= 2).await;
    let mut told = types(&receiver);
    told.sort();
    assert_eq!(told, ["refresh.failing", "refresh.recovered"]);
}

#[tokio::test]
async fn a_refused_config_is_told_once_and_targets_go_live() {
    let receiver = Upstream::plain().await;
    let world = plan(&receiver, ", events: [config.refused]").start().await;
    let config = fs::read_to_string(world.config()).expect("there");
    for _ in 0..2 {
        fs::write(world.config(), format!("{config}nonsense: 1\n")).expect("written");
        world.live().reload().expect_err("refused");
    }
    until("it is told", async || receiver.seen().len() == 1).await;
    let told = opened(&receiver.last());
    assert!(told["data"]["errors"][0].as_str().is_some_and(|error| error.contains("unknown key `nonsense`")), "{told}");
    let program = world.config().with_file_name("tell.sh");
    fs::write(&program, "cat > \"$1\"; echo \"$ATTACHE_EVENT\" >> \"$1\"\n").expect("written");
    let out = world.config().with_file_name("told");
    let target = format!("notify: [{{exec: [sh, {}, {}], events: [connection.created]}}]\n", program.display(), out.display());
    let lines: Vec<&str> = config.lines().filter(|line| !line.starts_with("notify:") && !line.starts_with("  - {webhook")).collect();
    fs::write(world.config(), format!("{}\n{target}", lines.join("\n"))).expect("written");
    world.live().reload().expect("live");
    until("the program heard of it", async || {
        put(&world).await;
        fs::read_to_string(&out).is_ok_and(|told| told.ends_with("connection.created\n"))
    })
    .await;
    assert_eq!(receiver.seen().len(), 1, "an edit that is refused the same way twice is one change");
}

#[tokio::test]
async fn a_test_notice_says_who_took_it() {
    let receiver = Upstream::plain().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "notify:\n  - {{webhook: 'http://{}/attache?from=printpixie', secret: {SECRET}}}\n  - {{exec: [\"false\"]}}\nroutes: []\n",
        receiver.address
    );
    fs::write(folder.path().join("routes.yaml"), config).expect("written");
    let path = folder.path().to_owned();
    let done = tokio::task::spawn_blocking(move || run(&path, &["notify", "test"])).await.expect("run");
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.out.contains(&format!("webhook {}: delivered", receiver.address)), "{}", done.out);
    assert!(done.out.contains("exec false: `false` ended with exit status: 1"), "{}", done.out);
    assert_eq!(types(&receiver), ["test"]);
}
