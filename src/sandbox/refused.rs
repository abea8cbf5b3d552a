//! What the authorization server says no with: the error codes of RFC 6749 §5.2, RFC 8628 §3.5 and RFC 7009 in one closed enum.

use http::StatusCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    InvalidRequest(&'static str),
    #[error("client authentication failed")]
    InvalidClient,
    #[error("{0}")]
    InvalidGrant(&'static str),
    #[error("{0}")]
    InvalidScope(&'static str),
    #[error("{0}")]
    UnauthorizedClient(&'static str),
    #[error("this grant type is unknown here")]
    UnsupportedGrantType,
    #[error("the user has not decided yet")]
    AuthorizationPending,
    #[error("polled before the interval was over")]
    SlowDown,
    #[error("the user said no")]
    AccessDenied,
    #[error("the device code has expired")]
    ExpiredToken,
    #[error("use POST")]
    NotPost,
}

impl Refused {
    pub(super) fn code(self) -> &'static str {
        match self {
            Refused::InvalidRequest(_) | Refused::NotPost => "invalid_request",
            Refused::InvalidClient => "invalid_client",
            Refused::InvalidGrant(_) => "invalid_grant",
            Refused::InvalidScope(_) => "invalid_scope",
            Refused::UnauthorizedClient(_) => "unauthorized_client",
            Refused::UnsupportedGrantType => "unsupported_grant_type",
            Refused::AuthorizationPending => "authorization_pending",
            Refused::SlowDown => "slow_down",
            Refused::AccessDenied => "access_denied",
            Refused::ExpiredToken => "expired_token",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Refused::InvalidClient => StatusCode::UNAUTHORIZED,
            Refused::NotPost => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
