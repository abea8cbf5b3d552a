//! `rate_limit`: how many calls a route takes, of each end user and in all (contract §3, §5).

use crate::harness::*;
use crate::upstream::{Reply, Upstream};
use crate::wire::{Answer, Connection, empty, request};
use std::fs;

const KEY: &str = "k-limit-91c2";

/// Routes to one upstream, each with its `rate_limit`.
async fn world(limit: &str) -> (World, Upstream) {
    let api = Upstream::plain().await;
    let world = Plan::new().up(api.address, &format!("    rate_limit: {limit}\n")).start().await;
    world.connect(MEGAN).await;
    world.connect(ALEX).await;
    (world, api)
}

#[track_caller]
fn is_limited(answer: &Answer, policy: &str, after_s: u64) {
    answer.is_problem("rate-limited", 429, "http_request_denied");
    let scope = policy.split(';').next().expect("a scope");
    assert_eq!(answer.header("retry-after"), after_s.to_string());
    assert_eq!(answer.header("ratelimit-policy"), policy);
    assert_eq!(answer.header("ratelimit"), format!("{scope};r=0;t={after_s}"));
}

#[tokio::test]
async fn one_end_users_calls_are_not_anothers() {
    let (world, api) = world("3/m").await;
    for _ in 0..3 {
        world.get("/up/x").await.is_ok();
    }
    for _ in 0..3 {
        is_limited(&world.get("/up/x").await, "\"user\";q=3;w=60", 20);
    }
    world.get_as(ALEX, "/up/x").await.is_ok();
    // Other accounts of hers are the same end user.
    let account = world.call("GET", "/up/x", &[("x-end-user", MEGAN), ("x-end-user-account", "work")], empty()).await;
    is_limited(&account, "\"user\";q=3;w=60", 20);
    assert_eq!(api.seen().len(), 4, "a call that is refused touches no upstream");
    world.get("/photos").await.is_ok();
}

#[tokio::test]
async fn calls_come_back_one_by_one() {
    let (world, _api) = world("{requests: 60, per: 1m, burst: 2}").await;
    world.get("/up/x").await.is_ok();
    world.get("/up/x").await.is_ok();
    is_limited(&world.get("/up/x").await, "\"user\";q=60;w=60", 1);
    world.clock.advance(std::time::Duration::from_millis(999));
    is_limited(&world.get("/up/x").await, "\"user\";q=60;w=60", 1);
    world.clock.advance(std::time::Duration::from_millis(1));
    world.get("/up/x").await.is_ok();
    is_limited(&world.get("/up/x").await, "\"user\";q=60;w=60", 1);
    world.clock.advance(seconds(60));
    let taken = [world.get("/up/x").await, world.get("/up/x").await, world.get("/up/x").await];
    assert_eq!(taken.map(|answer| answer.status.as_u16()), [200, 200, 429], "the bucket holds two");
}

#[tokio::test]
async fn a_route_may_have_a_limit_for_all_and_keeps_the_apis_own_fields() {
    let api = Upstream::start(|_| Reply::ok("RateLimit: \"api\";r=9;t=1\r\nRateLimit-Policy: \"api\";q=10;w=1\r\n", "ok")).await;
    let world = Plan::new().up(api.address, "    rate_limit: {user: 2/m, route: 3/h}\n").start().await;
    world.connect(MEGAN).await;
    world.connect(ALEX).await;
    for _ in 0..2 {
        let answer = world.get("/up/x").await;
        assert_eq!(
            (answer.is_ok().header("ratelimit"), answer.header("ratelimit-policy")),
            ("\"api\";r=9;t=1".into(), "\"api\";q=10;w=1".into())
        );
    }
    is_limited(&world.get("/up/x").await, "\"user\";q=2;w=60", 30);
    world.get_as(ALEX, "/up/x").await.is_ok();
    is_limited(&world.get_as(ALEX, "/up/x").await, "\"route\";q=3;w=3600", 1200);
}

/// A call that is refused begins no refresh, and no look-up of its connection.
#[tokio::test]
async fn a_refused_call_starts_no_refresh() {
    let (world, _api) = world("1/h").await;
    world.get("/up/x").await.is_ok();
    world.clock.advance(seconds(3000));
    let posts = || world.sandbox.counters().token_posts;
    let before = posts();
    world.clock.advance(seconds(590));
    for _ in 0..20 {
        assert_eq!(world.get("/up/x").await.status, 429);
    }
    assert_eq!(posts(), before);
}

#[tokio::test]
async fn routes_without_an_end_user_count_by_caller_or_all_together() {
    let api = Upstream::plain().await;
    let open = format!("  - {{match: '/open/{{*rest}}', as: none, upstream: 'http://{}/{{rest}}', rate_limit: 1/m}}\n", api.address);
    let world = Plan::new().routes(&open).start().await;
    let get = async |headers: &[(&str, &str)]| world.call("GET", "/open/x", headers, empty()).await.status.as_u16();
    // Nobody reads the name here, so it makes no difference.
    assert_eq!([get(&[("x-end-user", MEGAN)]).await, get(&[("x-end-user", ALEX)]).await, get(&[]).await], [200, 429, 429]);

    let hash = |key: &str| -> String {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let callers = format!("callers:\n  - {{name: one, key_sha256: {}}}\n  - {{name: two, key_sha256: {}}}\n", hash("one"), hash("two"));
    let world = Plan::new().top(&callers).routes(&open).start().await;
    let get = async |key: &str| world.call("GET", "/open/x", &[("x-attache-key", key)], empty()).await.status.as_u16();
    assert_eq!([get("one").await, get("one").await, get("two").await, get("two").await, get("three").await], [200, 429, 200, 429, 403]);
}

/// Without the lock around a bucket, or with one a worker, more than fifty would pass.
#[tokio::test]
async fn workers_count_together_exactly() {
    let (world, api) = world("50/h").await;
    let clients = (0..8).map(|_| {
        let proxy = world.proxy;
        tokio::spawn(async move {
            let mut connection = Connection::open(proxy).await;
            let mut taken = 0;
            for _ in 0..25 {
                let call = request("GET", "/up/x").header("x-end-user", MEGAN).body(empty()).expect("a request");
                taken += usize::from(connection.call(call).await.status == 200);
            }
            taken
        })
    });
    let taken: usize = futures_util::future::join_all(clients).await.into_iter().map(|taken| taken.expect("ran")).sum();
    assert_eq!((taken, api.seen().len()), (50, 50));
}

#[tokio::test]
async fn a_reload_keeps_the_counts_of_a_rate_that_stays() {
    let (world, _api) = world("2/h").await;
    world.get("/up/x").await.is_ok();
    world.get("/up/x").await.is_ok();
    let before = fs::read_to_string(world.config()).expect("the config");
    let reload = |text: String| {
        fs::write(world.config(), text).expect("written");
        world.live().reload().unwrap_or_else(|errors| panic!("{errors}"));
    };
    reload(format!("connect: {{app_name: A}}\n{before}"));
    assert_eq!(world.get("/up/x").await.status, 429);
    reload(before.replace("2/h", "3/h"));
    world.get("/up/x").await.is_ok();
    reload(before.replace("    rate_limit: 2/h\n", ""));
    for _ in 0..5 {
        world.get("/up/x").await.is_ok();
    }
}

/// The limit comes after the caller and the name were judged, and before anything is looked up.
#[tokio::test]
async fn who_may_not_call_is_not_counted() {
    let hash: String =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let api = Upstream::plain().await;
    let callers = format!("callers:\n  - {{name: app, key_sha256: {hash}}}\n");
    let world = Plan::new().top(&callers).up(api.address, "    rate_limit: {user: 1/m, route: 2/m}\n").start().await;
    world.connect(MEGAN).await;
    for headers in [&[("x-end-user", MEGAN)][..], &[("x-attache-key", KEY)], &[("x-attache-key", KEY), ("x-end-user", "a,b")]] {
        let status = world.call("GET", "/up/x", headers, empty()).await.status.as_u16();
        assert!([400, 403].contains(&status), "{status}");
    }
    let with_key = [("x-attache-key", KEY), ("x-end-user", MEGAN)];
    world.call("GET", "/up/x", &with_key, empty()).await.is_ok();
    is_limited(&world.call("GET", "/up/x", &with_key, empty()).await, "\"user\";q=1;w=60", 60);
}
