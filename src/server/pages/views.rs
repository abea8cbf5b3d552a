//! What each template is filled with: the pages' types read into the names, lines and marks that the templates print.

use super::mark::Mark;
use super::scope::Lines;
use super::style::{self, Forms};
use super::{Connecting, Ended, Logo, Look, NAMELESS, Offer, Page};
use crate::provider::Asks;
use askama::Template;

/// From how many offers on the choice is grouped by category.
const GROUPED_MIN: usize = 6;

/// The app as the templates name it.
struct App<'a> {
    name: &'a str,
    /// Its name at the start of a sentence.
    first: &'a str,
    /// Where "go back to …" leads.
    back: &'a str,
    /// The value of the logo's `src`.
    logo: Option<String>,
    /// Where there is no logo; none either for an app without a name.
    mark: Option<Mark>,
}

impl<'a> App<'a> {
    fn of(look: &'a Look) -> App<'a> {
        let nameless = look.app_name == NAMELESS;
        let logo = look.logo.as_ref().map(|logo| match logo {
            Logo::Url(url) => url.clone(),
            Logo::Inline { mime, base64 } => format!("data:{mime};base64,{base64}"),
        });
        let mark = (logo.is_none() && !nameless).then(|| Mark::of_app(&look.app_name, style::accent(look)));
        let (first, back) = if nameless { ("This app", "the app that sent you here") } else { (&*look.app_name, &*look.app_name) };
        App { name: &look.app_name, first, back, logo, mark }
    }

    /// A title that ends in the app's name, where it has one.
    fn title(&self, heading: &str) -> String {
        if self.name == NAMELESS { heading.to_owned() } else { format!("{heading} · {}", self.name) }
    }
}

/// One provider as the templates print it.
struct Card<'a> {
    offer: &'a Offer<'a>,
    mark: Mark,
    scopes: Lines<'a>,
}

impl<'a> Card<'a> {
    fn of(offer: &'a Offer<'a>) -> Card<'a> {
        Card { offer, mark: Mark::of_provider(offer.id, offer.name), scopes: Lines::of(offer.scopes) }
    }
}

/// The offers of one category.
struct Group<'a> {
    /// With a capital; `None` where headings would only be in the way.
    name: Option<String>,
    cards: Vec<Card<'a>>,
}

impl<'a> Group<'a> {
    /// In the order in which categories and offers first come; few are not worth headings.
    fn all(offers: &'a [Offer<'a>]) -> Vec<Group<'a>> {
        let mut categories: Vec<&str> = Vec::new();
        for offer in offers {
            if !categories.contains(&offer.category) {
                categories.push(offer.category);
            }
        }
        if offers.is_empty() {
            return Vec::new();
        }
        if offers.len() < GROUPED_MIN || categories.len() < 2 {
            return vec![Group { name: None, cards: offers.iter().map(Card::of).collect() }];
        }
        let group = |category: &str| Group {
            name: Some(capitalized(category)),
            cards: offers.iter().filter(|offer| offer.category == category).map(Card::of).collect(),
        };
        categories.into_iter().map(group).collect()
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    title: String,
    sheet: &'a str,
    app: App<'a>,
    page: &'a Connecting<'a>,
    card: Card<'a>,
}

#[derive(Template)]
#[template(path = "choose.html")]
struct Choose<'a> {
    title: String,
    sheet: &'a str,
    app: App<'a>,
    page: &'a Connecting<'a>,
    groups: Vec<Group<'a>>,
}

#[derive(Template)]
#[template(path = "ended.html")]
struct End<'a> {
    title: String,
    heading: String,
    sheet: &'a str,
    app: App<'a>,
    ended: &'a Ended<'a>,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    title: &'static str,
    sheet: &'a str,
    problem: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "admin_home.html")]
struct AdminHome<'a> {
    title: &'static str,
    sheet: &'a str,
    name: &'a str,
}

pub(super) fn connect(look: &Look, page: &Connecting<'_>) -> Page {
    let sheet = style::sheet(style::accent(look));
    let app = App::of(look);
    let html = match page.offers {
        [offer] => {
            let title = format!("Connect {} to {}", offer.name, app.name);
            text(&Confirm { title, sheet: &sheet, app, page, card: Card::of(offer) })
        }
        offers => {
            let title = format!("Connect an account to {}", app.name);
            text(&Choose { title, sheet: &sheet, app, page, groups: Group::all(offers) })
        }
    };
    Page { html, csp: style::policy(&sheet, look.logo.as_ref(), Forms::Onward) }
}

pub(super) fn ended(look: &Look, ended: &Ended<'_>) -> Page {
    let sheet = style::sheet(style::accent(look));
    let app = App::of(look);
    let heading = match ended {
        Ended::Connected { provider, pending: false, .. } => format!("{provider} is connected"),
        Ended::Connected { pending: true, .. } => "One step is left".to_owned(),
        Ended::Denied { provider } => format!("{provider} was not connected"),
        Ended::Failed { provider, .. } => format!("{provider} could not be connected"),
        Ended::Gone => "This link no longer works".to_owned(),
        Ended::OtherBrowser => "This link belongs to another browser".to_owned(),
        Ended::Refused { .. } => "This request was refused".to_owned(),
        Ended::NotFound => "There is nothing here".to_owned(),
        Ended::Unavailable => "This does not work right now".to_owned(),
    };
    let html = text(&End { title: app.title(&heading), heading, sheet: &sheet, app, ended });
    Page { html, csp: style::policy(&sheet, look.logo.as_ref(), Forms::None) }
}

pub(super) fn login(problem: Option<&str>) -> Page {
    let sheet = style::sheet(style::ACCENT);
    let html = text(&Login { title: "Log in · Attaché admin", sheet: &sheet, problem });
    Page { html, csp: style::policy(&sheet, None, Forms::Own) }
}

pub(super) fn admin_home(name: &str) -> Page {
    let sheet = style::sheet(style::ACCENT);
    let html = text(&AdminHome { title: "Attaché admin", sheet: &sheet, name });
    Page { html, csp: style::policy(&sheet, None, Forms::Own) }
}

/// A template fails only where its values' `Display` does, and those here are texts; an empty page is still no broken one.
fn text(template: &impl Template) -> String {
    template.render().unwrap_or_default()
}
