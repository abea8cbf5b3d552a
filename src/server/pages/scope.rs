//! A scope as a person can read it: standard ones in words, URL-like ones by their last part, and always the scope itself beside it.

/// One line of what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) label: &'a str,
    /// The scope itself, where the label is not it.
    pub(super) exact: Option<&'a str>,
}

/// How many scopes a page shows at once; with more than [`SHOWN_MAX`], the first of them.
const SHOWN_MAX: usize = 8;
const SHOWN_FIRST: usize = 5;

/// The scopes in two parts: those shown, and those behind "more".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines<'a> {
    pub(super) shown: Vec<Line<'a>>,
    pub(super) more: Vec<Line<'a>>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(scopes: &'a [String]) -> Lines<'a> {
        let cut = if scopes.len() > SHOWN_MAX { SHOWN_FIRST } else { scopes.len() };
        let (shown, more) = scopes.split_at(cut);
        let lines = |scopes: &'a [String]| scopes.iter().map(|scope| line(scope)).collect();
        Lines { shown: lines(shown), more: lines(more) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

fn line(scope: &str) -> Line<'_> {
    // Only those that mean the same everywhere (OpenID Connect Core §5.4 and §11); what any other permits is the provider's to say.
    let words = match scope {
        "openid" => Some("Confirm who you are"),
        "profile" => Some("Your name and picture"),
        "email" => Some("Your email address"),
        "phone" => Some("Your phone number"),
        "address" => Some("Your postal address"),
        "offline_access" => Some("Access while you are away"),
        _ => scope.split_once("://").and_then(|(_, rest)| rest.trim_end_matches('/').rsplit('/').next()),
    };
    match words.filter(|words| !words.is_empty()) {
        Some(label) => Line { label, exact: Some(scope) },
        None => Line { label: scope, exact: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_put_in_words_where_they_are_known() {
        for (scope, label, exact) in [
            ("openid", "Confirm who you are", Some("openid")),
            ("https://www.googleapis.com/auth/drive.readonly", "drive.readonly", Some("https://www.googleapis.com/auth/drive.readonly")),
            ("https://mail.google.com/", "mail.google.com", Some("https://mail.google.com/")),
            ("files.content.read", "files.content.read", None),
            ("repo/status", "repo/status", None),
            ("://", "://", None),
        ] {
            assert_eq!(line(scope), Line { label, exact }, "{scope}");
        }
    }

    #[test]
    fn many_scopes_are_cut() {
        let scopes: Vec<String> = (0..9).map(|n| format!("s{n}")).collect();
        let parts = |count: usize| {
            let lines = Lines::of(&scopes[..count]);
            (lines.shown.len(), lines.more.len())
        };
        assert_eq!((parts(0), parts(8), parts(9)), ((0, 0), (8, 0), (5, 4)));
    }
}
