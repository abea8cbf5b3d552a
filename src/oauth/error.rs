//! What a token endpoint's refusal means: who must act, and whether the grant still stands.

use super::refusal::{Meaning, Refusal};
use std::time::Duration;

/// What the caller must conclude. Only the first ends a grant; a doubt is never told as an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The grant is dead (`invalid_grant` and its kin): only the end user can mend it.
    GrantEnded,
    /// Passing, or not understood: try again later, not before `retry_after`.
    Transient { retry_after: Option<Duration> },
    /// The registration is at fault (`invalid_client` and its kin): the operator must act; the grant may be sound.
    Misconfigured,
}

/// A call of the token endpoint that gave nothing. Its text is ours: it never holds a byte of the provider's answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{summary}")]
pub struct TokenError {
    pub verdict: Verdict,
    /// Constant words and, where it is a known one, the error code.
    pub summary: String,
    /// Whether the provider could have seen the request, and thus may have rotated the refresh token.
    pub sent: bool,
    /// Whether the provider's answer came: if so, a refusal rotated nothing.
    pub answered: bool,
    /// What it says of the token endpoint as a whole.
    pub health: Health,
}

/// What the end of a call says of the token endpoint, whoever's grant it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers: what it said is of this grant or of the registration.
    Answered,
    /// It is out of reach, or fails: no answer, or 5xx. `retry_after` is its own word.
    Out { retry_after: Option<Duration> },
    /// It has enough of us: 429.
    Limited { retry_after: Option<Duration> },
    /// Nothing: it was not asked, or answered what no token endpoint does.
    Unknown,
}

impl Health {
    fn of(status: u16, retry_after: Option<Duration>) -> Option<Health> {
        match status {
            429 => Some(Health::Limited { retry_after }),
            500.. => Some(Health::Out { retry_after }),
            _ => None,
        }
    }
}

/// Codes that end a grant: RFC 6749 §5.2's, GitHub's two and Slack's two.
const GRANT_ENDED: &[&str] = &["invalid_grant", "bad_refresh_token", "bad_verification_code", "invalid_refresh_token", "token_revoked"];

/// Codes that blame the client: RFC 6749 §5.2's, RFC 6749 §4.1.2.1's spelled out at some token endpoints, and GitHub's two.
const MISCONFIGURED: &[&str] = &[
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_request",
    "incorrect_client_credentials",
    "redirect_uri_mismatch",
];

/// Codes that are told by name though they say no more than "later".
const PASSING: &[&str] = &[
    "temporarily_unavailable",
    "server_error",
    "slow_down",
    "access_denied",
    "authorization_pending",
    "authorization_declined",
    "expired_token",
    "unsupported_token_type",
];

/// The code as a constant of ours, so that no text of a provider's reaches a log.
pub(super) fn known_code(code: &str) -> Option<&'static str> {
    [GRANT_ENDED, MISCONFIGURED, PASSING].into_iter().flatten().copied().find(|known| known.eq_ignore_ascii_case(code))
}

/// What an error code under a status means. A server error or a rate limit decides over the code: an overloaded provider's word on a grant
/// is not to be trusted.
pub(super) fn verdict(status: u16, code: Option<&str>, retry_after: Option<Duration>) -> Verdict {
    if status == 429 || status >= 500 {
        return Verdict::Transient { retry_after };
    }
    match code {
        Some(code) if GRANT_ENDED.contains(&code) => Verdict::GrantEnded,
        Some(code) if MISCONFIGURED.contains(&code) => Verdict::Misconfigured,
        _ => Verdict::Transient { retry_after },
    }
}

impl TokenError {
    pub(super) fn refused(status: u16, refusal: impl Into<Refusal>, retry_after: Option<Duration>) -> Self {
        let Refusal { code, rule } = refusal.into();
        let verdict = match &rule {
            Some((Meaning::Passing, _)) => Verdict::Transient { retry_after },
            Some((Meaning::EndsGrant, _)) => Verdict::GrantEnded,
            Some((Meaning::Client, _)) => Verdict::Misconfigured,
            None => verdict(status, code, retry_after),
        };
        let told = rule.as_ref().and_then(|(_, told)| told.as_deref());
        let text = code.or(told).unwrap_or(if rule.is_some() { "an error that its definition knows" } else { "an error of its own" });
        let summary = format!("the provider answered {status} with {text}");
        let health = Health::of(status, retry_after).unwrap_or(Health::Answered);
        TokenError { verdict, summary, sent: true, answered: true, health }
    }

    /// An answer that is neither a grant nor a refusal that can be read. `why` completes "the provider answered 200 with …".
    pub(super) fn unusable(status: u16, why: &str, retry_after: Option<Duration>) -> Self {
        let summary = format!("the provider answered {status} with {why}");
        let health = Health::of(status, retry_after).unwrap_or(Health::Unknown);
        TokenError { verdict: Verdict::Transient { retry_after }, summary, sent: true, answered: true, health }
    }

    /// What a call needs first is not to be had now: the call itself was not sent.
    pub(super) fn later(summary: String, answered: bool) -> Self {
        TokenError { verdict: Verdict::Transient { retry_after: None }, summary, sent: false, answered, health: Health::Unknown }
    }

    /// The registration cannot make this call at all.
    pub(super) fn cannot(why: &str) -> Self {
        TokenError { verdict: Verdict::Misconfigured, summary: why.to_owned(), sent: false, answered: false, health: Health::Unknown }
    }

    #[cfg(test)]
    pub(crate) fn of_health(health: Health) -> Self {
        TokenError { health, ..TokenError::cannot("a test") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_invalid_grant_class_ends_a_grant() {
        let later = Verdict::Transient { retry_after: None };
        for (status, code, expected) in [
            (400, "invalid_grant", Verdict::GrantEnded),
            (400, "Invalid_Grant", Verdict::GrantEnded),
            (200, "bad_refresh_token", Verdict::GrantEnded),
            (401, "invalid_client", Verdict::Misconfigured),
            (400, "unsupported_grant_type", Verdict::Misconfigured),
            (400, "temporarily_unavailable", later),
            (400, "something_new", later),
            (400, "access_denied", later),
            (500, "invalid_grant", later),
            (429, "invalid_grant", later),
        ] {
            let error = TokenError::refused(status, known_code(code), None);
            assert_eq!(error.verdict, expected, "{status} {code}");
            assert!(!error.to_string().contains("something_new"), "{error}");
        }
    }
}
