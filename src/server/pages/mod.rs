//! The pages that a person sees: connecting, how it ended, and the admin listener's login. HTML and its policy alone, no requests.
//!
//! Plain HTML without scripts: every text comes through askama's escaping, nothing loads but the app's own logo, and the one `<style>` is let
//! through by its hash. Deliberately absent: a provider's own error text, which anybody who can make a link could choose, and trademarks:
//! providers are shown by a mark of our own.
//!
//! Answer a page with its status, its `csp` as `Content-Security-Policy`, `Cache-Control: no-store` and `Referrer-Policy: same-origin`. Not
//! `no-referrer`: under it browsers send `Origin: null` with the page's own form.

mod colour;
mod mark;
mod scope;
mod style;
mod views;

use crate::config::Connect;
use crate::provider::{Asks, Input};

/// What stands for the app's name where `connect.app_name` does not say it.
const NAMELESS: &str = "this app";

/// How the operator wants the pages to look (`connect:` of `routes.yaml`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub app_name: String,
    pub logo: Option<Logo>,
    /// `#rrggbb` or `#rgb`; anything else counts as none.
    pub accent: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logo {
    /// An absolute URL, which the browser fetches.
    Url(String),
    /// Carried in the page itself.
    Inline { mime: &'static str, base64: String },
}

impl Look {
    pub fn of(connect: &Connect) -> Look {
        let logo = connect.logo.as_ref().map(|logo| match logo {
            crate::config::Logo::Url(url) => Logo::Url(url.to_string()),
            crate::config::Logo::Inline { mime, base64 } => Logo::Inline { mime, base64: base64.to_string() },
        });
        Look {
            app_name: connect.app_name.as_deref().unwrap_or(NAMELESS).to_owned(),
            logo,
            accent: connect.accent.as_deref().map(str::to_owned),
        }
    }
}

/// One provider as a page shows it.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub category: &'a str,
    pub scopes: &'a [String],
    pub asks: Asks,
    /// What must be typed besides, before there is a provider to continue to.
    pub inputs: &'a [Field<'a>],
    /// The authorize host: "continues at accounts.google.com".
    pub host: Option<&'a str>,
}

/// One input of a definition, as a field of the form.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a str,
    pub label: &'a str,
    /// "acme"; it stands in the empty field.
    pub example: &'a str,
    /// What follows what is typed: ".zendesk.com".
    pub suffix: &'a str,
    /// What was typed before, where the form came back.
    pub value: &'a str,
}

impl<'a> Field<'a> {
    pub fn of(input: &'a Input, value: &'a str) -> Field<'a> {
        let text = |text: &'a Option<Box<str>>| text.as_deref().unwrap_or_default();
        Field { name: &input.name, label: &input.label, example: text(&input.example), suffix: text(&input.suffix), value }
    }
}

/// What the connect page needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Connecting<'a> {
    /// The form's action, a path.
    pub action: &'a str,
    pub end_user: &'a str,
    /// The account label, where it is not the default one.
    pub account: Option<&'a str>,
    /// One: the page asks for a yes. Several: the end user picks. After a bad form give only the offer that it was for, so that its fields are
    /// the ones shown beside the problem.
    pub offers: &'a [Offer<'a>],
    /// The host of the return URL.
    pub returns_to: Option<&'a str>,
    /// What was wrong with the form that came: "Enter the API key."
    pub problem: Option<&'a str>,
}

/// How connecting ended, or why it cannot begin. `what` and `todo` are sentences of ours, never a provider's text.
#[derive(Debug, Clone, Copy)]
pub enum Ended<'a> {
    Connected {
        provider: &'a str,
        end_user: &'a str,
        missing_scopes: &'a [String],
        /// The app has yet to complete it.
        pending: bool,
    },
    Denied {
        provider: &'a str,
    },
    Failed {
        provider: &'a str,
        what: &'a str,
        todo: &'a str,
    },
    /// 410: the link is unknown, expired or used.
    Gone,
    /// 403: the link was opened in another browser first.
    OtherBrowser,
    /// 400 or 403: a cross-site form, a wrong provider, a broken request.
    Refused {
        what: &'a str,
        todo: &'a str,
    },
    /// 404.
    NotFound,
    /// 503: the store is out of reach.
    Unavailable,
}

/// A whole page and the `Content-Security-Policy` that it works under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub html: String,
    pub csp: String,
}

/// The page behind a connect link: one offer to confirm, or several to choose from.
pub fn connect(look: &Look, page: &Connecting<'_>) -> Page {
    views::connect(look, page)
}

/// The page at the end, good or bad.
pub fn ended(look: &Look, ended: &Ended<'_>) -> Page {
    views::ended(look, ended)
}

/// The admin listener's login: one password field `token`, posted to `/login`.
pub fn login(problem: Option<&str>) -> Page {
    views::login(problem)
}

/// The admin listener's `/` after login; `name` is that of the admin token.
pub fn admin_home(name: &str) -> Page {
    views::admin_home(name)
}

#[cfg(test)]
mod tests;
