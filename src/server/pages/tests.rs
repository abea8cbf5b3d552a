//! What must hold on every page: texts stay texts, the policy fits the page, and a screen reader finds its way.

use super::*;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const HOSTILE: &str = "<script>alert('1')</script>\"'><img src=x onerror=\"a\">&{{ 7*7 }}";

fn look(name: &str) -> Look {
    Look { app_name: name.into(), logo: None, accent: Some("#f2c200".into()) }
}

fn offer<'a>(id: &'a str, name: &'a str, scopes: &'a [String], asks: Asks) -> Offer<'a> {
    Offer { id, name, category: name, scopes, asks, inputs: &[], host: Some(name) }
}

fn connecting<'a>(offers: &'a [Offer<'a>], text: &'a str) -> Connecting<'a> {
    Connecting { action: text, end_user: text, account: Some(text), offers, returns_to: Some(text), problem: Some(text) }
}

/// Every page, with `text` wherever it takes one, with and without what may be left out.
fn every_page(text: &str) -> Vec<(&'static str, Page)> {
    let scopes: Vec<String> = (0..10).map(|n| format!("https://{text}/{n}")).collect();
    let look = Look { logo: Some(Logo::Url(format!("https://cdn.example.com/{text}"))), ..look(text) };
    let plain = Look { app_name: NAMELESS.into(), logo: None, accent: None };
    let all: Vec<Offer<'_>> = [Asks::Consent, Asks::ApiKey, Asks::Password].map(|asks| offer(text, text, &scopes, asks)).to_vec();
    let fields = [Field { name: "sub", label: text, example: text, suffix: text, value: text }];
    let asking = Offer { inputs: &fields, ..all[0] };
    let bare = Offer { host: None, scopes: &[], category: "other", ..all[0] };
    let many = [&all[..], &[bare; 3]].concat();
    let least = Connecting { account: None, returns_to: None, problem: None, ..connecting(&[], text) };
    let connected = |missing, pending| Ended::Connected { provider: text, end_user: text, missing_scopes: missing, pending };
    let mut pages = vec![
        ("consent", connect(&look, &connecting(&all[..1], text))),
        ("api key", connect(&look, &connecting(&all[1..2], text))),
        ("password", connect(&look, &connecting(&all[2..], text))),
        ("inputs", connect(&look, &connecting(&[asking], text))),
        ("a choice with inputs", connect(&look, &connecting(&[asking, all[1]], text))),
        ("bare", connect(&plain, &Connecting { offers: &[bare], ..least })),
        ("choice", connect(&look, &connecting(&all, text))),
        ("grouped choice", connect(&self::look(text), &connecting(&many, text))),
        ("no choice", connect(&plain, &least)),
        ("login", login(None)),
        ("login again", login(Some(text))),
        ("admin", admin_home(text)),
    ];
    let ends = [
        ("connected", connected(&[], false)),
        ("connected in part", connected(&scopes, false)),
        ("pending", connected(&[], true)),
        ("denied", Ended::Denied { provider: text }),
        ("failed", Ended::Failed { provider: text, what: text, todo: text }),
        ("gone", Ended::Gone),
        ("other browser", Ended::OtherBrowser),
        ("refused", Ended::Refused { what: text, todo: text }),
        ("not found", Ended::NotFound),
        ("unavailable", Ended::Unavailable),
    ];
    for (name, end) in ends {
        pages.push((name, ended(&look, &end)));
        pages.push((name, ended(&plain, &end)));
    }
    pages
}

/// The tags of a page, without the angle brackets.
fn tags(html: &str) -> Vec<&str> {
    html.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect()
}

fn attribute<'t>(tag: &'t str, name: &str) -> Option<&'t str> {
    tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()
}

#[test]
fn texts_cannot_become_markup() {
    for ((name, hostile), (_, tame)) in every_page(HOSTILE).into_iter().zip(every_page("tame")) {
        for piece in ["<script", "<img src=x", "\"'>", "49"] {
            assert!(!hostile.html.contains(piece), "{name}: {piece}\n{}", hostile.html);
        }
        // The same tags in the same order as with a harmless text, but for the places where a scope may break, so nothing got out of its attribute.
        let names = |html: &str| {
            let names = tags(html).into_iter().map(|tag| tag.split([' ', '\n']).next().unwrap_or_default().to_owned());
            names.filter(|name| name != "wbr").collect::<Vec<_>>()
        };
        assert_eq!(names(&hostile.html), names(&tame.html), "{name}");
        assert!(!hostile.csp.contains("script"), "{name}: {}", hostile.csp);
    }
}

#[test]
fn the_policy_lets_through_this_style_and_no_script() {
    for (name, page) in every_page("tame") {
        let style = page.html.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).expect("a style");
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        assert!(page.csp.contains(&format!("style-src 'sha256-{hash}';")), "{name}: {}", page.csp);
        assert!(page.csp.starts_with("default-src 'none'; ") && page.csp.ends_with("base-uri 'none'; frame-ancestors 'none'"), "{name}");
        assert_eq!(page.html.matches("<style").count(), 1, "{name}");
        for unwanted in [" style=\"", "<script", " onclick", "javascript:", "@import", "url("] {
            assert!(!page.html.contains(unwanted), "{name}: {unwanted}");
        }
    }
}

#[test]
fn forms_lead_where_the_policy_says() {
    let forms = |page: Page| page.csp.split("; ").find(|part| part.starts_with("form-action")).map(str::to_owned).expect("form-action");
    let scopes = [];
    let offers = [offer("a", "A", &scopes, Asks::Consent)];
    assert_eq!(forms(connect(&look("A"), &connecting(&offers, "a"))), "form-action 'self' https: http://localhost:* http://127.0.0.1:*");
    assert_eq!(forms(ended(&look("A"), &Ended::Gone)), "form-action 'none'");
    assert_eq!((forms(login(None)), forms(admin_home("a"))), ("form-action 'self'".into(), "form-action 'self'".into()));
    let html = connect(&look("A"), &Connecting { action: "/connect/s3ss1on", ..connecting(&offers, "a") }).html;
    assert!(html.contains("<form method=\"post\" action=\"/connect/s3ss1on\">"), "{html}");
    assert!(html.contains("name=\"provider\" value=\"a\""), "{html}");
}

#[test]
fn pages_are_small_and_whole() {
    for (name, page) in every_page("printpixie") {
        let html = &page.html;
        assert!(html.len() < 15 * 1024, "{name}: {} bytes", html.len());
        assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"), "{name}");
        for (needed, count) in [("<h1", 1), ("<main", 1), ("<title>", 1), ("name=\"viewport\"", 1), ("content=\"noindex\"", 1)] {
            assert_eq!(html.matches(needed).count(), count, "{name}: {needed}");
        }
        assert!(!html.contains("  "), "{name}: runs of spaces");
    }
}

#[test]
fn every_field_has_a_label_and_every_id_is_its_own() {
    let scopes = [];
    let several = [Asks::ApiKey, Asks::Password, Asks::ApiKey];
    let offers: Vec<_> = several.iter().zip(["a", "b", "c"]).map(|(asks, id)| offer(id, id, &scopes, *asks)).collect();
    let fields = ["sub", "host"].map(|name| Field { name, label: "A sub-domain", example: "acme", suffix: ".acme.test", value: "" });
    let asking = [Offer { inputs: &fields, ..offer("d", "d", &scopes, Asks::Consent) }, Offer { inputs: &fields[..1], ..offers[1] }];
    let pages = [
        ("inputs", connect(&look("A"), &connecting(&asking[..1], "a")), 2),
        ("inputs and a password", connect(&look("A"), &connecting(&asking[1..], "a")), 3),
        ("a choice with inputs", connect(&look("A"), &connecting(&asking, "a")), 5),
        ("api key", connect(&look("A"), &connecting(&offers[..1], "a")), 1),
        ("password", connect(&look("A"), &connecting(&offers[1..2], "a")), 2),
        ("choice", connect(&look("A"), &connecting(&offers, "a")), 4),
        ("login", login(Some("No.")), 1),
    ];
    for (name, page, fields) in pages {
        let tags = tags(&page.html);
        let of =
            |kind: &str, attr: &str| tags.iter().filter(|tag| tag.starts_with(kind)).map(|tag| attribute(tag, attr)).collect::<Vec<_>>();
        let (inputs, labels) = (of("input ", "id"), of("label ", "for"));
        assert_eq!((inputs.len(), &inputs), (fields, &labels), "{name}");
        assert!(inputs.iter().all(Option::is_some), "{name}");
        let mut ids: Vec<_> = tags.iter().filter_map(|tag| attribute(tag, "id")).collect();
        let before = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), before, "{name}: an id stands twice");
        for described in tags.iter().filter_map(|tag| attribute(tag, "aria-describedby")).flat_map(str::split_whitespace) {
            assert!(ids.contains(&described), "{name}: nothing is called {described}");
        }
    }
}

#[test]
fn the_fields_are_named_as_the_form_is_read() {
    let scopes = [];
    let html = |asks| connect(&look("A"), &Connecting { problem: None, ..connecting(&[offer("a", "A", &scopes, asks)], "a") }).html;
    let inputs = |html: &str| tags(html).iter().filter(|tag| tag.starts_with("input ")).map(ToString::to_string).collect::<Vec<_>>();
    for (asks, expected) in [
        (Asks::Consent, vec![]),
        (Asks::ApiKey, vec![("api_key", "password")]),
        (Asks::Password, vec![("username", "text"), ("password", "password")]),
    ] {
        let html = html(asks);
        let found = inputs(&html);
        let found: Vec<_> =
            found.iter().map(|tag| (attribute(tag, "name").expect("name"), attribute(tag, "type").expect("type"))).collect();
        assert_eq!(found, expected);
    }
    assert!(inputs(&html(Asks::ApiKey))[0].contains("autocomplete=\"off\""));
    assert!(login(None).html.contains("name=\"token\" type=\"password\""));
}

#[test]
fn people_are_told_who_asks_for_what() {
    let scopes: Vec<String> = (0..9).map(|n| format!("scope.{n}")).collect();
    let google = Offer {
        id: "google",
        name: "Google",
        category: "storage",
        scopes: &scopes,
        asks: Asks::Consent,
        inputs: &[],
        host: Some("accounts.google.com"),
    };
    let page = Connecting {
        action: "/connect/x",
        end_user: "megan@personalemail.com",
        account: None,
        offers: &[google],
        returns_to: Some("printpixie.example"),
        problem: None,
    };
    let html = connect(&look("PrintPixie"), &page).html;
    let words = html.replace("<bdi>", "").replace("</bdi>", "").replace("<strong>", "").replace("</strong>", "");
    for told in [
        "<title>Connect Google to PrintPixie</title>",
        "<h1>Connect Google to PrintPixie</h1>",
        "for megan@personalemail.com<",
        "PrintPixie asks for",
        "scope.8",
        "<summary>Show 4 more</summary>",
        "Only continue if you opened this link yourself from PrintPixie: connecting gives PrintPixie access to your Google account.",
        "Continue to Google",
        "Continues at accounts.google.com.",
        "Afterwards you return to printpixie.example.",
    ] {
        assert!(words.contains(told), "{told}\n{words}");
    }
    let end = Ended::Connected { provider: "Google", end_user: "megan@personalemail.com", missing_scopes: &scopes[..1], pending: false };
    let html = ended(&look("PrintPixie"), &end).html;
    assert!(html.contains("<title>Google is connected · PrintPixie</title>") && html.contains("<bdi>scope.0</bdi>"), "{html}");
    let nameless = Look { app_name: NAMELESS.into(), logo: None, accent: None };
    assert!(ended(&nameless, &Ended::Gone).html.contains("<title>This link no longer works</title>"));
}

#[test]
fn text_on_the_accent_can_be_read() {
    for accent in ["#ffffff", "#000", "#1a73e8", "#f2c200", "#777777", "#808080", "#e5484d", "#00a884", "#ff5a5f", "nonsense"] {
        let html = ended(&Look { accent: Some(accent.into()), ..look("A") }, &Ended::Gone).html;
        let value = |name: &str| html.split(name).nth(1).and_then(|rest| colour::Colour::parse(rest.split(';').next()?)).expect("a colour");
        let ratio = value("--accent:").contrast(value("--on-accent:"));
        assert!(ratio >= 4.5, "{accent}: {ratio:.2}");
    }
}
