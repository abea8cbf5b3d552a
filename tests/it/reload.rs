//! The config goes live while calls run: no call fails, none sees a mix, and a bad edit changes nothing (THREATS 36).

use crate::browser::Browser;
use crate::connect::{link, session};
use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Connection, Raw, empty, request, until, within};
use attache::sandbox::{Client, Sandbox, Settings};
use futures_util::future::join_all;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A world whose `/gen` leads to a path with a number that each config has its own of, and the config's text for any number.
async fn world() -> (World, Upstream, impl Fn(u64) -> String) {
    let upstream = Upstream::start(|seen| Reply::ok("", &seen.target)).await;
    let address = upstream.address;
    let plan = move |number: u64| {
        let route = format!("  - {{match: GET /gen, as: none, upstream: 'http://{address}/{number}'}}\n");
        Plan::new().up(address, "").routes(&route)
    };
    let world = plan(1).start().await;
    world.connect(MEGAN).await;
    let sandbox = world.sandbox.addr;
    (world, upstream, move |number| plan(number).yaml(sandbox))
}

/// As editors and config managers do it: a new file, renamed over the old.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

async fn number(connection: &mut Connection) -> u64 {
    let answer = connection.call(request("GET", "/gen").body(empty()).expect("a request")).await;
    answer.is_ok().text().trim_start_matches('/').parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_during_two_hundred_reloads_all_see_a_config_that_was_live() {
    let (world, _upstream, text) = world().await;
    let (tried, live, over) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let calls = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (tried, live, over, calls) = (Arc::clone(&tried), Arc::clone(&live), Arc::clone(&over), Arc::clone(&calls));
            let proxy = world.proxy;
            tokio::spawn(async move {
                let mut connection = Connection::open(proxy).await;
                while !over.load(Ordering::SeqCst) || calls.load(Ordering::SeqCst) < 10_000 {
                    let oldest = live.load(Ordering::SeqCst);
                    let seen = number(&mut connection).await;
                    let newest = tried.load(Ordering::SeqCst);
                    assert!((oldest..=newest).contains(&seen) && seen % 5 != 0, "{seen} is not of {oldest} to {newest}");
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for number in 2..=201 {
        let broken = number % 5 == 0;
        let text = if broken { text(number).replace("upstream:", "upsteram:") } else { text(number) };
        if !broken {
            tried.store(number, Ordering::SeqCst);
        }
        put(&world.config(), &text);
        let live_config = Arc::clone(world.live());
        // The file watch may have been there first: then the reload finds nothing new, which is as good.
        let reloaded = tokio::task::spawn_blocking(move || live_config.reload()).await.expect("no panic");
        assert_eq!(reloaded.is_err(), broken, "{number}");
        if !broken {
            live.store(number, Ordering::SeqCst);
        }
    }
    over.store(true, Ordering::SeqCst);
    for client in within("the calls", join_all(clients)).await {
        client.expect("no call failed");
    }
    assert!(calls.load(Ordering::SeqCst) >= 10_000);
}

#[tokio::test]
async fn an_edit_goes_live_by_itself() {
    let (world, _upstream, text) = world().await;
    let mut connection = Connection::open(world.proxy).await;
    put(&world.config(), &text(2));
    until("a renamed file is live", async || number(&mut connection).await == 2).await;
    fs::write(world.config(), text(3)).expect("written");
    until("a file written in place is live", async || number(&mut connection).await == 3).await;
}

#[tokio::test]
async fn threat_36_a_swapped_symlink_goes_live() {
    let (world, _upstream, text) = world().await;
    let at = |name: &str| world.folder.path().join(name);
    // As Kubernetes mounts a config map: routes.yaml -> ..data/routes.yaml, ..data -> a folder that is swapped as one.
    for (folder, generation) in [("v2", 2), ("v3", 3)] {
        fs::create_dir(at(folder)).expect("a folder");
        fs::write(at(folder).join("routes.yaml"), text(generation)).expect("written");
    }
    symlink("v2", at("..data")).expect("linked");
    symlink("..data/routes.yaml", at("link")).expect("linked");
    fs::rename(at("link"), world.config()).expect("renamed");
    let mut connection = Connection::open(world.proxy).await;
    until("the link is live", async || number(&mut connection).await == 2).await;
    symlink("v3", at("..tmp")).expect("linked");
    fs::rename(at("..tmp"), at("..data")).expect("swapped");
    until("the swap is live", async || number(&mut connection).await == 3).await;
}

#[tokio::test]
async fn threat_36_a_bad_edit_keeps_the_old_config_and_tells_where_it_is_wrong() {
    let (world, _upstream, text) = world().await;
    let mut connection = Connection::open(world.proxy).await;
    let good = text(2);
    for (what, broken, message) in [
        ("a typo", good.replace("as: none", "ass: none"), "ass"),
        ("half a file", good[..good.len() / 2].to_owned(), ""),
        ("an unknown provider", good.replace("provider: sandbox", "provider: sandbux"), "sandbux"),
        (
            "a variable that is not set",
            good.replace(&format!("client_id: {}", Settings::DEV_CLIENT_ID), "client_id: ${NOT_SET}"),
            "NOT_SET",
        ),
        ("two routes alike", format!("{good}  - {{match: GET /gen, as: none, upstream: 'http://127.0.0.1:1/'}}\n"), "same"),
    ] {
        put(&world.config(), &broken);
        let answer = world.admin("POST", "/v1/reload").await;
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        let errors = answer.json()["errors"].as_array().expect("a list").clone();
        assert!(!errors.is_empty(), "{what}");
        for error in &errors {
            assert!(error["file"].as_str().expect("a file").ends_with("routes.yaml"), "{what}: {error}");
            assert!(error["line"].as_u64() > Some(0) && error["column"].as_u64() > Some(0), "{what}: {error}");
        }
        assert!(errors.iter().any(|error| error["message"].as_str().expect("a message").contains(message)), "{what}: {errors:?}");
        assert_eq!(number(&mut connection).await, 1, "{what}");
    }
    let typo = good.replace("as: none", "ass: none");
    let line = typo.lines().position(|line| line.contains("ass: none")).expect("there") + 1;
    put(&world.config(), &typo);
    let errors = world.admin("POST", "/v1/reload").await.json()["errors"].clone();
    assert_eq!(errors[0]["line"], line);
    assert!(errors[0]["hint"].as_str().is_some_and(|hint| hint.contains("as")), "{errors}");

    fs::remove_file(world.config()).expect("removed");
    assert_eq!(world.admin("POST", "/v1/reload").await.status, 422);
    assert_eq!(number(&mut connection).await, 1, "the file is gone, the config is not");
    put(&world.config(), &good);
    let answer = world.admin("POST", "/v1/reload").await;
    assert!(answer.is_ok().json()["generation"].as_u64() >= Some(2));
    assert_eq!(number(&mut connection).await, 2, "the next good edit goes live");
}

/// A file that is written in place is empty for a moment: were that a config, every call would find no route until the rest is there.
#[tokio::test]
async fn threat_36_an_empty_file_never_goes_live() {
    let (world, _upstream, _) = world().await;
    let mut connection = Connection::open(world.proxy).await;
    for empty in ["", "\n", "# nothing yet\n"] {
        fs::write(world.config(), empty).expect("written");
        let answer = world.admin("POST", "/v1/reload").await;
        assert_eq!(answer.status, 422, "{empty:?}: {}", answer.text());
        assert_eq!(number(&mut connection).await, 1, "{empty:?}");
    }
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_kept_back_and_told() {
    let (world, _upstream, text) = world().await;
    put(&world.config(), &text(2).replace("admin: 127.0.0.1:0", "admin: 127.0.0.1:1"));
    let answer = world.admin("POST", "/v1/reload").await;
    let told = answer.is_ok().json()["restart_required"].clone();
    assert!(told.as_array().expect("a list").iter().any(|key| key.as_str().is_some_and(|key| key.contains("admin"))), "{told}");
    let mut connection = Connection::open(world.proxy).await;
    assert_eq!(number(&mut connection).await, 2, "the rest is live");
}

#[tokio::test]
async fn a_call_under_way_ends_by_the_config_it_began_with() {
    let (world, _upstream, text) = world().await;
    let mut raw = Raw::open(world.proxy).await;
    raw.send(format!("GET /api/slow?ms=500 HTTP/1.1\r\nHost: localhost\r\nX-End-User: {MEGAN}\r\n\r\n")).await;
    until("the call is under way", async || world.sandbox.counters().api_calls == 1).await;
    // Its route is gone, and so is the header that named its user.
    let without = text(2).replace("match: /api/{*rest}", "match: /moved/{*rest}");
    put(&world.config(), &format!("end_user: {{header: X-Someone}}\n{without}\n"));
    let answer = world.admin("POST", "/v1/reload").await;
    answer.is_ok();
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("vary"), Some("x-end-user, x-end-user-account"), "by the config it began with");
    let next = world.call("GET", "/moved/me", &[("x-someone", MEGAN)], empty()).await;
    assert_eq!(next.is_ok().header("vary"), "x-someone, x-end-user-account");
}

/// A plain provider is a file of a few lines, dropped beside a running Attaché.
const ACME: &str = "\
display_name: Acme Photos
category: photos
authorize_url: http://HOST/authorize
token_url: http://HOST/token
client_auth: body
scopes: [photos.read]
token_hosts: ['HOST']
";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_provider_is_a_file_that_goes_live_by_itself() {
    assert!(ACME.lines().count() < 10);
    let world = Plan::new().start().await;
    let clock = Arc::new(world.clock.clone());
    let client = Client::new("acme-app", Some("s3cret"), &["http://localhost/oauth/callback/acme"]);
    let settings = Settings { bind: ([127, 0, 0, 1], 0).into(), clients: vec![client], ..Settings::default() };
    let acme = Sandbox::start(settings, clock).await.expect("another provider");
    let acme = acme.addr.to_string();
    let folder = world.folder.path().join("providers");
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join("acme.yaml"), ACME.replace("HOST", &acme)).expect("written");
    let route = "  - {match: \"/acme/{*rest}\", provider: acme, upstream: \"http://ACME/v1/{rest}\"}\n".replace("ACME", &acme);
    let plan = Plan::new().providers("  acme: {client_id: acme-app, client_secret: s3cret}\n").routes(&route);
    put(&world.config(), &plan.yaml(world.sandbox.addr));
    until("its route is live", async || world.get("/acme/photos").await.status == 401).await;

    let session = session(&world, json!({"providers": ["acme"]})).await;
    let mut browser = Browser::default();
    let authorize = browser.set_out(link(&session), "acme").await;
    let back = browser.decide(&authorize, MEGAN, "allow").await;
    browser.get(&back).await.is_ok();
    world.get("/acme/photos").await.is_ok();

    // Edits of the file go live as well, and a bad one changes nothing.
    put(&folder.join("acme.yaml"), &ACME.replace("HOST", &acme).replace("category", "categry"));
    let refused = world.admin("POST", "/v1/reload").await;
    assert_eq!(refused.status, 422);
    let error = &refused.json()["errors"][0];
    assert!(error["file"].as_str().is_some_and(|file| file.ends_with("acme.yaml")) && error["line"] == 2, "{error}");
    put(&folder.join("acme.yaml"), &ACME.replace("HOST", &acme).replace("Acme Photos", "Acme Pictures"));
    let shown = async || world.admin("GET", "/v1/providers").await.is_ok().json()["items"][0]["display_name"].clone();
    until("the edit is live", async || shown().await == "Acme Pictures").await;
    world.get("/acme/photos").await.is_ok();
}
