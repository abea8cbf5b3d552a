//! `/metrics` as a scraper and an operator meet it: what is counted, what is not, and that the shipped dashboard and alerts name what is there.

use crate::harness::{ADMIN_TOKEN, ALEX, MEGAN, Plan, World};
use crate::upstream::Upstream;
use crate::wire::{self, empty, until};
use std::collections::BTreeSet;
use std::net::SocketAddr;

async fn scrape(address: SocketAddr) -> String {
    let answer = wire::call(address, wire::request("GET", "/metrics").body(empty()).expect("a request")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.text()
}

/// The value of one series; 0 where there is none.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn calls_and_refreshes_are_counted_by_route_and_provider() {
    let world = Plan::new().workers(2).start().await;
    world.connect_expired(MEGAN).await;
    for _ in 0..3 {
        world.get("/photos").await.is_ok();
    }
    assert_eq!(world.get_as(ALEX, "/photos").await.status, 401);
    assert_eq!(world.get("/nothing").await.status, 404);
    let route = "route=\"list-photos\",provider=\"sandbox\"";
    let expected = [
        (format!("attache_requests_total{{{route},status=\"2xx\"}}"), 3.0),
        (format!("attache_requests_total{{{route},status=\"4xx\"}}"), 1.0),
        (format!("attache_request_errors_total{{{route},error=\"not-connected\"}}"), 1.0),
        ("attache_request_errors_total{route=\"\",provider=\"\",error=\"no-route\"}".to_owned(), 1.0),
        (format!("attache_requests_waited_for_token_total{{{route}}}"), 2.0),
        (format!("attache_request_duration_seconds_count{{{route}}}"), 4.0),
        (format!("attache_upstream_first_byte_seconds_count{{{route}}}"), 3.0),
        ("attache_refreshes_total{provider=\"sandbox\",outcome=\"ok\"}".to_owned(), 1.0),
        ("attache_requests_in_flight".to_owned(), 0.0),
        ("attache_store_up".to_owned(), 1.0),
        ("attache_config_generation".to_owned(), 1.0),
    ];
    // A call is counted at the end of its body, which the client may see a moment before.
    until("all calls are counted", async || {
        let text = scrape(world.admin).await;
        expected.iter().all(|(series, count)| value(&text, series) == *count)
    })
    .await;
}

/// Taken out, the rule that labels are configured names would fail it: labels that clients may choose let anybody fill the memory of Attaché and of the
/// scraper, and tell who its users are.
#[tokio::test]
async fn threat_45_nothing_that_a_client_says_becomes_a_label() {
    let upstream = Upstream::plain().await;
    let world = World::in_front_of(&upstream, "  - {match: '/any/{*rest}', as: none, upstream: 'http://UP/{rest}'}\n").await;
    world.connect(MEGAN).await;
    for number in 0..20 {
        let user = format!("user-{number}@example.com");
        world.get_as(&user, &format!("/photos?made-up-{number}")).await;
        world.get_as(&user, &format!("/made-up-{number}")).await;
        world.call(&format!("MADEUP{number}"), "/any/x", &[], empty()).await;
    }
    let text = scrape(world.admin).await;
    assert!(!text.contains("made-up") && !text.contains("MADEUP") && !text.contains('@'), "{text}");
}

#[tokio::test]
async fn off_there_is_nothing_to_scrape_and_on_again_without_a_restart() {
    let listen = "  proxy: 127.0.0.1:0\n  public: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  health: 127.0.0.1:0\n";
    let world = Plan::new().listen(listen).top("metrics: {enabled: false}\n").start().await;
    world.connect(MEGAN).await;
    world.get("/photos").await.is_ok();
    assert_eq!(world.admin("GET", "/metrics").await.status, 404);
    let health = world.running.health[0];
    let on_health = async || wire::call(health, wire::request("GET", "/metrics").body(empty()).expect("a request")).await.status;
    assert_eq!(on_health().await, 404);
    let config = std::fs::read_to_string(world.config()).expect("there");
    std::fs::write(world.config(), config.replace("{enabled: false}", "{on_health: true}")).expect("written");
    world.live().reload().expect("live");
    assert_eq!(on_health().await, 200);
    assert!(!scrape(world.admin).await.contains("list-photos"), "what was off was not counted");
    world.get("/photos").await.is_ok();
    until("the call is counted", async || scrape(world.admin).await.contains("route=\"list-photos\"")).await;
    assert_eq!(wire::call(world.proxy, wire::request("GET", "/metrics").body(empty()).expect("a request")).await.status, 404);
}

#[tokio::test]
async fn a_config_that_was_refused_shows_until_the_next_good_one() {
    let world = World::connected().await;
    let config = std::fs::read_to_string(world.config()).expect("there");
    std::fs::write(world.config(), format!("{config}nonsense: 1\n")).expect("written");
    world.live().reload().expect_err("refused");
    assert_eq!(value(&scrape(world.admin).await, "attache_config_refused"), 1.0);
    std::fs::write(world.config(), config).expect("written");
    world.live().reload().expect("live");
    assert_eq!(value(&scrape(world.admin).await, "attache_config_refused"), 0.0);
}

/// The names after `attache_` in a text, without what a series adds to its family's.
fn names(text: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let found = text.match_indices("attache_").filter(|(at, _)| !text[..*at].ends_with(is_word));
    let names = found.map(|(at, _)| text[at..].chars().take_while(|letter| is_word(*letter)).collect::<String>());
    let family = |name: String| {
        ["_total", "_bucket", "_count", "_sum", "_info"].iter().find_map(|end| name.strip_suffix(end)).map_or(name.clone(), str::to_owned)
    };
    names.map(family).collect()
}

#[tokio::test]
async fn the_dashboard_the_alerts_and_the_page_name_the_metrics_that_are_there() {
    let world = World::start().await;
    world.connect_expired(MEGAN).await;
    world.get("/photos").await.is_ok();
    let line = serde_json::json!({"access_token": "at"});
    assert_eq!(world.admin_json("PUT", &format!("/v1/connections/sandbox/{ALEX}"), &line).await.status, 201);
    until("the connections are counted", async || scrape(world.admin).await.contains("attache_connections{")).await;
    let text = scrape(world.admin).await;
    let there: BTreeSet<String> =
        text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect();
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for file in ["grafana.json", "alerts.yaml", "metrics.md"] {
        let missing: Vec<_> = names(&read(file)).into_iter().filter(|name| !there.contains(name)).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}, which is not among {there:?}");
    }
    let told = names(&read("metrics.md"));
    assert_eq!(
        there.iter().filter(|name| !told.contains(*name)).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "docs/metrics.md tells of all"
    );
    assert!(!text.contains(ADMIN_TOKEN));
}
