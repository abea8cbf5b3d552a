//! The style sheet with a look's accent in it, and the policy that lets this one style through.

use super::colour::Colour;
use super::{Logo, Look};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::LazyLock;
use url::Url;

/// The accent where the operator chose none.
pub(super) const ACCENT: Colour = Colour([0x2b, 0x5c, 0xd9]);

/// `--card` of the style sheet, in each scheme; a test holds them against it.
const CARD_LIGHT: Colour = Colour::WHITE;
const CARD_DARK: Colour = Colour([0x1a, 0x1d, 0x23]);

/// The style sheet without its comments, indents and line ends.
static SHEET: LazyLock<String> =
    LazyLock::new(|| include_str!("style.css").lines().map(str::trim).filter(|line| !line.starts_with("/*")).collect::<Vec<_>>().concat());

/// Where a page's forms may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forms {
    /// The page has none.
    None,
    /// To its own origin and no further.
    Own,
    /// To its own origin, and from there to a provider. Chromium applies `form-action` to the redirects after a form's POST as well, and a
    /// provider redirects on to hosts that nobody here knows; plain http is for providers on this machine, such as the sandbox.
    Onward,
}

/// The colour that a look asks for.
pub(super) fn accent(look: &Look) -> Colour {
    look.accent.as_deref().and_then(Colour::parse).unwrap_or(ACCENT)
}

/// The whole text of the page's `<style>`. It holds nothing that anybody wrote but a colour, which was parsed.
pub(super) fn sheet(accent: Colour) -> String {
    // A button is to stand out from the card (WCAG 1.4.11, 3:1): an accent that does not by itself gets an edge that does.
    let edge = |card: Colour| if accent.contrast(card) >= 3.0 { accent.to_string() } else { "var(--strong)".to_owned() };
    format!(
        ":root{{--accent:{accent};--on-accent:{ink};--edge:{light}}}@media (prefers-color-scheme:dark){{:root{{--edge:{dark}}}}}{sheet}",
        ink = accent.ink(),
        light = edge(CARD_LIGHT),
        dark = edge(CARD_DARK),
        sheet = *SHEET,
    )
}

/// Nothing loads but the logo, nothing runs, nobody frames the page, and no style but `sheet`.
pub(super) fn policy(sheet: &str, logo: Option<&Logo>, forms: Forms) -> String {
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, sheet.as_bytes()));
    let images = match logo.and_then(origin) {
        Some(origin) => format!("data: {origin}"),
        None => "data:".to_owned(),
    };
    let forms = match forms {
        Forms::None => "'none'",
        Forms::Own => "'self'",
        Forms::Onward => "'self' https: http://localhost:* http://127.0.0.1:*",
    };
    format!("default-src 'none'; style-src 'sha256-{hash}'; img-src {images}; form-action {forms}; base-uri 'none'; frame-ancestors 'none'")
}

/// As the URL parser writes it, so that nothing in it can end the directive.
fn origin(logo: &Logo) -> Option<String> {
    match logo {
        Logo::Url(url) => Url::parse(url).ok().map(|url| url.origin()).filter(url::Origin::is_tuple).map(|it| it.ascii_serialization()),
        Logo::Inline { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a variable in the light and in the dark half of the sheet.
    fn variable(name: &str) -> [Colour; 2] {
        let name = format!("{name}:");
        let mut values = SHEET.split(&name).skip(1).filter_map(|rest| Colour::parse(rest.split([';', '}']).next()?));
        [values.next().expect("light"), values.next().expect("dark")]
    }

    #[test]
    fn text_of_the_sheet_can_be_read_in_both_schemes() {
        assert_eq!(variable("--card"), [CARD_LIGHT, CARD_DARK]);
        for (over, under, least) in [
            ("--ink", "--card", 7.0),
            ("--ink", "--tint", 7.0),
            ("--soft", "--card", 4.5),
            ("--soft", "--tint", 4.5),
            ("--good", "--card", 4.5),
            ("--bad", "--card", 4.5),
            ("--bad", "--bad-tint", 4.5),
            ("--ink", "--warn-tint", 7.0),
            ("--warn", "--warn-tint", 3.0),
            ("--strong", "--card", 3.0),
            ("--focus", "--card", 3.0),
            ("--focus", "--page", 3.0),
        ] {
            for (over_colour, under_colour) in variable(over).into_iter().zip(variable(under)) {
                let ratio = over_colour.contrast(under_colour);
                assert!(ratio >= least, "{over} {over_colour} on {under} {under_colour}: {ratio:.2}");
            }
        }
    }

    #[test]
    fn an_accent_that_drowns_gets_an_edge() {
        assert!(sheet(Colour::WHITE).starts_with(":root{--accent:#ffffff;--on-accent:#000000;--edge:var(--strong)}@media"));
        assert!(sheet(Colour::WHITE).contains("{:root{--edge:#ffffff}}"), "white stands out in the dark");
        assert!(sheet(ACCENT).contains("--on-accent:#ffffff;--edge:#2b5cd9}"));
    }

    #[test]
    fn the_policy_names_the_logos_origin_and_no_more() {
        let images = |url: &str| {
            let policy = policy("", Some(&Logo::Url(url.into())), Forms::None);
            policy.split("; ").find(|part| part.starts_with("img-src")).map(str::to_owned).expect("img-src")
        };
        assert_eq!(images("https://cdn.example.com/a/logo.png?x=;"), "img-src data: https://cdn.example.com");
        assert_eq!(images("http://localhost:3000/logo.png"), "img-src data: http://localhost:3000");
        assert_eq!(images("data:image/png;base64,"), "img-src data:");
        assert_eq!(images("; script-src *"), "img-src data:");
    }
}
