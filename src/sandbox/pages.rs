//! The few pages that a person sees: consent, device code, and what went wrong. Plain HTML without scripts.

use crate::sandbox::grants::Approval;
use crate::sandbox::respond::{Answer, answer, no_store, set};
use crate::sandbox::settings::Settings;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use std::fmt::Write;
use std::sync::LazyLock;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:8vh auto;padding:0 1.25rem}\
h1{font-size:1.4rem;line-height:1.25}\
fieldset{border:1px solid GrayText;border-radius:.5rem;margin:1rem 0;padding:.5rem 1rem 1rem}\
legend{padding:0 .4rem}\
label{display:block;margin:.5rem 0}\
input[type=text]{font:inherit;width:100%;box-sizing:border-box;padding:.45rem .6rem;margin-top:.2rem}\
button{font:inherit;padding:.55rem 1.4rem;margin-right:.6rem;border-radius:.4rem;border:1px solid GrayText;cursor:pointer}\
button.main{background:#1a56c4;border-color:#1a56c4;color:#fff}\
:focus-visible{outline:3px solid #5b93ff;outline-offset:2px}\
.note{opacity:.8;font-size:.9rem}";

/// Nothing loads, nothing runs, nobody frames the page. `form-action` is left out with purpose: browsers apply it to the redirects after a POST
/// as well, and those lead to the client and on to wherever it goes next.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'")
});

/// The request as the user must understand it, and the two answers to it.
pub(super) fn consent(settings: &Settings, approval: &Approval, ticket: &str, hint: Option<&str>) -> Answer {
    let mut scopes = String::new();
    for scope in &approval.scopes {
        let _ = write!(scopes, "<li><code>{}</code></li>", escape(scope));
    }
    let body = format!(
        "<p><strong>{client}</strong> asks for:</p><ul>{scopes}</ul>\
         <form method=\"post\" action=\"/authorize\"><input type=\"hidden\" name=\"ticket\" value=\"{ticket}\">{users}{buttons}</form>\
         <p class=\"note\">Afterwards your browser goes to <code>{redirect}</code>.</p>",
        client = escape(&approval.client_id),
        ticket = escape(ticket),
        users = users(settings, hint),
        buttons = BUTTONS,
        redirect = escape(&approval.redirect_uri),
    );
    page(StatusCode::OK, "Allow access to your photos?", &body)
}

pub(super) fn device(settings: &Settings, code: &str) -> Answer {
    let body = format!(
        "<form method=\"post\" action=\"/device\"><label>The code that your device shows\
         <input type=\"text\" name=\"user_code\" value=\"{}\" autocomplete=\"off\" required></label>{}{BUTTONS}</form>",
        escape(code),
        users(settings, None),
    );
    page(StatusCode::OK, "Connect a device", &body)
}

pub(super) fn problem(status: StatusCode, what: &str) -> Answer {
    page(status, "This did not work", &format!("<p>{}</p>", escape(what)))
}

pub(super) fn told(title: &str, what: &str) -> Answer {
    page(StatusCode::OK, title, &format!("<p>{}</p>", escape(what)))
}

pub(super) fn home(issuer: &str) -> Answer {
    let body = format!(
        "<p>A provider of its own for development and tests, at <code>{}</code>. Everything is in memory, and anybody here may be anybody.</p>\
         <ul><li><a href=\"/.well-known/oauth-authorization-server\">Authorization server metadata</a></li>\
         <li><a href=\"/control\">Settings and counters</a></li><li><a href=\"/control/grants\">Grants</a></li>\
         <li><a href=\"/device\">Connect a device</a></li></ul>",
        escape(issuer)
    );
    page(StatusCode::OK, "Attaché sandbox", &body)
}

const BUTTONS: &str = "<p><button class=\"main\" name=\"decision\" value=\"allow\">Allow</button>\
                       <button name=\"decision\" value=\"deny\">Deny</button></p>";

fn users(settings: &Settings, hint: Option<&str>) -> String {
    let known = hint.is_none_or(|hint| settings.users.iter().any(|user| user == hint));
    let mut html = String::from("<fieldset><legend>Who are you?</legend>");
    for (at, user) in settings.users.iter().enumerate() {
        let picked = hint.map_or(at == 0, |hint| hint == user);
        let checked = if picked { " checked" } else { "" };
        let user = escape(user);
        let _ = write!(html, "<label><input type=\"radio\" name=\"user\" value=\"{user}\"{checked}> {user}</label>");
    }
    let other = if known { "" } else { hint.unwrap_or_default() };
    let _ = write!(
        html,
        "<label>Somebody else<input type=\"text\" name=\"other_user\" value=\"{}\" autocomplete=\"off\"></label></fieldset>",
        escape(other)
    );
    html
}

fn page(status: StatusCode, title: &str, body: &str) -> Answer {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · Attaché sandbox</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let mut response = answer(status, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    set(headers, CONTENT_SECURITY_POLICY, &POLICY);
    set(headers, REFERRER_POLICY, "no-referrer");
    set(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, HeaderName::from_static("x-frame-options"), "DENY");
    no_store(response)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">'&</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&lt;/a&gt;");
    }
}
