//! Where an end user's browser may be sent afterwards: `return_url` against `connect.allowed_return_urls` (RFC 9700 §4.11, THREATS row 24).

use url::Url;

/// Checks a `return_url` against the allowed ones and answers it as it will be used.
///
/// An entry is an exact URL; its query, where it has none, may be any. One that ends in `/*` takes every path below, and a bare origin every path
/// of it. Browsers read `\` as `/` and drop line ends and tabs, so a text with any of them is refused before it is parsed.
///
/// # Errors
/// In words for whoever wrote the URL.
pub fn return_url(text: &str, allowed: &[Box<str>]) -> Result<Box<str>, String> {
    let plain = !text.contains(['\\', '@', '#']) && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    let url = Url::parse(text).ok().filter(|url| {
        // `https:evil.example` and `https:/evil.example` parse as well: the text must name its host as people read it.
        plain && matches!(url.scheme(), "http" | "https") && text.to_ascii_lowercase().starts_with(&format!("{}://", url.scheme()))
    });
    let Some(url) = url else {
        return Err("`return_url` must be an absolute http:// or https:// URL without user, fragment, backslash or white space".to_owned());
    };
    if allowed.iter().any(|entry| takes(entry, &url)) {
        return Ok(url.as_str().into());
    }
    if allowed.is_empty() {
        return Err("no `return_url` is allowed: list the app's own under `connect.allowed_return_urls`".to_owned());
    }
    Err("`return_url` is not among `connect.allowed_return_urls`".to_owned())
}

fn takes(entry: &str, url: &Url) -> bool {
    let (entry, below) = match entry.strip_suffix("/*") {
        Some(above) => (above, true),
        None => (entry, false),
    };
    let Ok(entry) = Url::parse(entry) else { return false };
    if (entry.scheme(), entry.host(), entry.port_or_known_default()) != (url.scheme(), url.host(), url.port_or_known_default()) {
        return false;
    }
    if below {
        let above = entry.path().trim_end_matches('/');
        // Dot segments are gone from a parsed URL's path, but not those that a server may decode.
        let is_below = url.path().strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        return is_below && !url.path().to_ascii_lowercase().contains("%2e") && !url.path().to_ascii_lowercase().contains("%2f");
    }
    let whole_origin = entry.path() == "/" && entry.query().is_none();
    whole_origin || entry.path() == url.path() && entry.query().is_none_or(|query| url.query() == Some(query))
}

/// The URL with more pairs at the end of its query; its own keep their bytes.
pub fn with_pairs(url: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    let joint = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{joint}{}", query.finish())
}

/// The host that a person would name, for the page that says where they will be sent.
pub fn host_of(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOWED: [&str; 4] =
        ["https://app.example.com/connected", "https://app.example.com/users/*", "http://localhost:3000", "https://q.example.com/a?x=1"];

    fn allowed(text: &str) -> bool {
        return_url(text, &ALLOWED.map(Into::into)).is_ok()
    }

    #[test]
    fn threat_24_only_what_is_allowed_is_returned_to() {
        for good in [
            "https://app.example.com/connected",
            "https://app.example.com/connected?order=7",
            "HTTPS://APP.example.com:443/connected",
            "https://app.example.com/users/7/photos",
            "http://localhost:3000/anything?at=all",
            "https://q.example.com/a?x=1",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "",
            "/connected",
            "//evil.example/connected",
            "/\\evil.example",
            "https:/app.example.com/connected",
            "https:app.example.com/connected",
            "https:\\\\app.example.com/connected",
            "https://app.example.com\\@evil.example/connected",
            "https://app.example.com@evil.example/connected",
            "https://user@app.example.com/connected",
            "https://app.example.com.evil.example/connected",
            "https://evilapp.example.com/connected",
            "https://app.example.com%2eevil.example/connected",
            "https://app.example.com%20.evil.example/connected",
            "https://app.example.com/connected%20",
            "https://app.example.com/connected/more",
            "https://app.example.com/connected/../other",
            "https://app.example.com:8443/connected",
            "http://app.example.com/connected",
            "https://app.example.com/users",
            "https://app.example.com/users/../admin",
            "https://app.example.com/users/%2e%2e/admin",
            "https://app.example.com/usersevil/1",
            "https://app.example.com/connected#x",
            " https://app.example.com/connected",
            "https://app.example.com/conn\tected",
            "https://app.example.com/\u{a0}connected",
            "javascript:alert(1)",
            "data:text/html,x",
            "http://localhost:3001/",
            "http://localhost:3000.evil.example/",
            "https://q.example.com/a",
            "https://q.example.com/a?x=2",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        assert!(return_url("https://app.example.com/connected", &[]).is_err(), "nothing is allowed by default");
    }

    #[test]
    fn pairs_join_the_query_that_is_there() {
        for (url, expected) in [
            ("https://a.b/c", "https://a.b/c?status=connected"),
            ("https://a.b/c?", "https://a.b/c?status=connected"),
            ("https://a.b/c?x=%2F", "https://a.b/c?x=%2F&status=connected"),
        ] {
            assert_eq!(with_pairs(url, &[("status", "connected")]), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_stays_on_an_allowed_host(text in "(https?:)?[/\\\\]{0,3}[a-z.@:%0-9\\\\ ]{0,30}(app\\.example\\.com|localhost:3000)[a-z./@:%\\\\?#]{0,20}") {
            if let Ok(url) = return_url(&text, &ALLOWED.map(Into::into)) {
                let url = Url::parse(&url).expect("a URL");
                prop_assert!(["app.example.com", "localhost", "q.example.com"].contains(&url.host_str().unwrap_or_default()), "{text}");
            }
        }
    }
}
