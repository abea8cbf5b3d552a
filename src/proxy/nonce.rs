//! The nonces that servers want in proofs (RFC 9449 §8, §9): kept as they come with answers, and the answers that ask for one.

use crate::attach::{Scheme, dpop};
use crate::config::Route;
use crate::token::Token;
use crate::upstream::Origin;
use http::header::WWW_AUTHENTICATE;
use http::{Response, StatusCode};

/// What a server says in place of an answer to a proof without its nonce (RFC 9449 §9).
const WANTED: &str = "use_dpop_nonce";

/// Keeps the nonce that an answer brought for the connection's next call to that server, and tells whether the answer is no more than the
/// wish for it.
pub(super) fn learn<B>(route: &Route, origin: &Origin, token: Option<&Token>, response: &Response<B>) -> bool {
    let (Scheme::Dpop, Some(token)) = (&route.attach, token) else { return false };
    let Some(nonce) = dpop::nonce_in(response.headers()) else { return false };
    token.prepared.nonces().learn(origin.id.0, nonce);
    let says = |value: &http::HeaderValue| value.to_str().is_ok_and(|text| text.contains(WANTED));
    response.status() == StatusCode::UNAUTHORIZED && response.headers().get_all(WWW_AUTHENTICATE).iter().any(says)
}
