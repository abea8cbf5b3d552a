//! `ca_cert`: who vouches for one provider's servers, and for nobody else's.

use crate::harness::*;
use crate::tls::{Authority, Secure, names};
use attache::config;
use attache::upstream::TlsRoots;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// In YAML's double quotes.
fn quoted(pem: &str) -> String {
    format!("\"{}\"", pem.replace('\n', "\\n").replace('\r', ""))
}

/// Providers by name, each with further keys, all at one server; the machine trusts `roots`.
fn plan(roots: Arc<TlsRoots>, server: &Secure, providers: &[(&str, String)]) -> Plan {
    let host = format!("localhost:{}", server.address.port());
    let mut plan = Plan::new().tls(roots);
    for (name, keys) in providers {
        plan = plan
            .providers(&format!(
                "  {name}: {{client_id: {name}, client_secret: s, token_url: 'https://{host}/token', token_hosts: ['{host}'], {keys}}}\n"
            ))
            .routes(&format!(
                "  - {{match: '/{name}/{{*rest}}', provider: {name}, as: app, upstream: 'https://{host}/{{rest}}'}}\n  \
                 - {{match: '/open/{name}/{{*rest}}', provider: {name}, as: none, upstream: 'https://{host}/{{rest}}'}}\n"
            ));
    }
    plan
}

/// Fails when pools or TLS sessions are shared between trusts.
#[tokio::test]
async fn threat_15_a_private_authority_vouches_for_its_own_provider_alone() {
    // Were pools not keyed by it (`Origin::interned`), `other` would be served by the connection that `own` made.
    for alpn in [&[&b"http/1.1"[..]][..], &[b"h2", b"http/1.1"]] {
        let (authority, public) = (Authority::new(), Authority::new());
        let server = Secure::start(&authority, names(&["localhost"]), alpn).await;
        let own = ("own", format!("ca_cert: {}", quoted(&authority.pem)));
        let several = ("several", format!("ca_cert: {}", quoted(&format!("{}{}", public.pem, authority.pem))));
        let world = plan(public.roots(), &server, &[own, several, ("other", "pkce: none".into())]).start().await;
        for path in ["/own/x", "/several/x", "/open/own/y"] {
            world.call("GET", path, &[], crate::wire::empty()).await.is_ok();
        }
        let seen: Vec<_> = server.seen().into_iter().map(|(_, target, token, _)| (target, token)).collect();
        assert_eq!(seen.iter().filter(|(target, _)| target == "/token").count(), 2, "{seen:?}");
        assert!(seen.contains(&("/x".into(), "Bearer granted".into())) && seen.contains(&("/y".into(), String::new())));
        // The same server, by the machine's roots: neither its token endpoint nor its API is believed, warm connections or not.
        world.call("GET", "/other/x", &[], crate::wire::empty()).await.is_problem("refresh-failed", 502, "proxy_internal_response");
        for _ in 0..4 {
            let answer = world.call("GET", "/open/other/x", &[], crate::wire::empty()).await;
            answer.is_problem("upstream-unreachable", 502, "destination_unavailable");
        }
        assert_eq!(server.seen().len(), seen.len());
    }
}

/// Fails when `ca_cert` is added to the machine's roots.
#[tokio::test]
async fn threat_15_the_machines_roots_are_not_trusted_beside_it() {
    let (authority, private) = (Authority::new(), Authority::new());
    let server = Secure::start(&authority, names(&["localhost"]), &[b"http/1.1"]).await;
    let keys = format!("ca_cert: {}", quoted(&private.pem));
    let world = plan(authority.roots(), &server, &[("plain", "pkce: none".into()), ("own", keys)]).start().await;
    world.call("GET", "/plain/x", &[], crate::wire::empty()).await.is_ok();
    let before = server.seen().len();
    world.call("GET", "/own/x", &[], crate::wire::empty()).await.is_problem("refresh-failed", 502, "proxy_internal_response");
    let answer = world.call("GET", "/open/own/x", &[], crate::wire::empty()).await;
    answer.is_problem("upstream-unreachable", 502, "destination_unavailable");
    assert_eq!(server.seen().len(), before);
}

#[tokio::test]
async fn what_an_issuer_publishes_is_read_and_kept_by_each_trust_apart() {
    let (authority, public) = (Authority::new(), Authority::new());
    let server = Secure::start(&authority, names(&["localhost"]), &[b"http/1.1"]).await;
    let host = format!("localhost:{}", server.address.port());
    let mut plan = Plan::new().tls(public.roots());
    for (name, keys) in [("other", "pkce: S256".to_owned()), ("own", format!("ca_cert: {}", quoted(&authority.pem)))] {
        plan = plan
            .providers(&format!(
                "  {name}: {{client_id: {name}, client_secret: s, issuer: 'https://{host}', token_hosts: ['{host}'], {keys}}}\n"
            ))
            .routes(&format!("  - {{match: '/{name}/{{*rest}}', provider: {name}, as: app, upstream: 'https://{host}/{{rest}}'}}\n"));
    }
    let world = plan.start().await;
    // That the one could not read it, which is kept for a while, is nothing to the other; nor the other way round.
    for (path, good) in [("/other/x", false), ("/own/x", true), ("/other/x", false), ("/own/y", true)] {
        let answer = world.call("GET", path, &[], crate::wire::empty()).await;
        assert_eq!(answer.status, if good { 200 } else { 502 }, "{path}: {}", answer.text());
    }
    let targets: Vec<_> = server.seen().into_iter().map(|(_, target, ..)| target).collect();
    assert_eq!(targets, ["/.well-known/openid-configuration", "/token", "/x", "/y"]);
}

#[tokio::test]
async fn it_still_wants_the_right_name_and_a_reload_changes_it_for_the_next_call() {
    let (authority, other) = (Authority::new(), Authority::new());
    let misnamed = Secure::start(&authority, names(&["example.com"]), &[]).await;
    let world = plan(other.roots(), &misnamed, &[("own", format!("ca_cert: {}", quoted(&authority.pem)))]).start().await;
    let answer = world.call("GET", "/open/own/x", &[], crate::wire::empty()).await;
    answer.is_problem("upstream-unreachable", 502, "destination_unavailable");
    let server = Secure::start(&authority, names(&["localhost"]), &[b"http/1.1"]).await;
    let keys = |pem: &str| [("own", format!("ca_cert: {}", quoted(pem)))];
    let world = plan(other.roots(), &server, &keys(&authority.pem)).start().await;
    world.call("GET", "/open/own/x", &[], crate::wire::empty()).await.is_ok();
    let text = fs::read_to_string(world.config()).expect("read");
    fs::write(world.config(), text.replace(&quoted(&authority.pem), &quoted(&other.pem))).expect("written");
    world.admin("POST", "/v1/reload").await.is_ok();
    let answer = world.call("GET", "/open/own/x", &[], crate::wire::empty()).await;
    answer.is_problem("upstream-unreachable", 502, "destination_unavailable");
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
}

#[test]
fn a_bundle_that_is_none_is_told_with_its_place() {
    let load = |value: &str| {
        let yaml = format!(
            "providers:\n  w:\n    client_id: a\n    issuer: https://a.b\n    token_hosts: [c.d]\n    ca_cert: {value}\nroutes:\n  - {{match: /a, provider: w, upstream: 'https://c.d/'}}\n"
        );
        let env = |name: &str| (name == "KEY").then(|| rcgen::KeyPair::generate().expect("a key").serialize_pem());
        config::load_str(&yaml, std::path::Path::new("routes.yaml"), std::path::Path::new("/"), &env).map(|snapshot| {
            assert!(snapshot.providers["w"].proofs.trust.is_some());
        })
    };
    let pem = Authority::new().pem;
    load(&quoted(&pem)).expect("a bundle");
    let cut = pem.replace("END CERTIFICATE", "END CERT");
    for (value, part) in [
        ("hunter2".to_owned(), "`ca_cert` is no certificate in PEM"),
        (quoted(&cut), "`ca_cert` is no certificate in PEM"),
        ("\"${KEY}\"".to_owned(), "`ca_cert` holds a private key"),
        (quoted("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "a certificate (number 1) that no authority can have"),
    ] {
        let errors = load(&value).expect_err("refused").to_string();
        assert!(errors.contains(part) && errors.contains("routes.yaml:6:14"), "{errors}");
        assert!(!errors.contains("hunter2") && !errors.contains("BEGIN") && !errors.contains("MII"), "{errors}");
    }
}
