//! `request_token_url`, `oauth1` and `attach: oauth1`: the keys of a provider that speaks OAuth 1.0a (RFC 5849).

use super::definition::Draft;
use super::error::At;
use super::fields::{Fields, Problems, Shape};
use crate::attach::Scheme;
use crate::attach::oauth1::{Consumer, Method, RsaKey};
use crate::base::secret::Secret;
use crate::provider::{EndpointUrl, OAuth1};
use std::sync::Arc;

const OAUTH1: Shape = Shape { name: "OAuth1", said: "`oauth1`" };

/// The method as a word; RSA's key comes from the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    HmacSha1,
    HmacSha256,
    RsaSha1,
    Plaintext,
}

/// The keys that are there.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    pub(super) request_token_url: Option<EndpointUrl>,
    /// Whether the section is there at all, be it an empty one.
    section: bool,
    signature: Option<Word>,
    realm: Option<Box<str>>,
    confirms_callback: Option<bool>,
}

impl Keys {
    pub(super) fn read(fields: &Fields<'_>, request_token_url: Option<EndpointUrl>) -> Keys {
        let Some(section) = fields.section("oauth1", OAUTH1) else {
            return Keys { request_token_url, ..Keys::default() };
        };
        let words =
            [("HMAC-SHA1", Word::HmacSha1), ("HMAC-SHA256", Word::HmacSha256), ("RSA-SHA1", Word::RsaSha1), ("PLAINTEXT", Word::Plaintext)];
        let signature = section.choice("signature", &words);
        let realm = section.word("realm").map(Box::<str>::from);
        if realm.as_deref().is_some_and(|realm| !realm.bytes().all(|byte| (0x20..0x7f).contains(&byte))) {
            section.say(section.at_key("realm"), "`realm` stands in a header: it is ASCII", None);
        }
        let confirms_callback = section.flag("callback_confirmed");
        section.finish();
        Keys { request_token_url, section: true, signature, realm, confirms_callback }
    }
}

/// Whether a provider speaks OAuth 1.0a.
pub(super) fn is_spoken(draft: &Draft) -> bool {
    draft.oauth1.section || draft.oauth1.request_token_url.is_some() || matches!(draft.attach, Some(Scheme::OAuth1(_)))
}

/// Whether its requests are signed by `client_key`.
pub(super) fn signs_by_key(draft: &Draft) -> bool {
    is_spoken(draft) && draft.oauth1.signature == Some(Word::RsaSha1)
}

/// What OAuth 1.0a needs of a registration that is on, and the key that it signs by where that is RSA.
pub(super) fn check(
    draft: &Draft,
    has_secret: bool,
    client_key: Option<&str>,
    (at, key_at): (&At, &At),
    problems: &Problems,
) -> Option<RsaKey> {
    if draft.oauth1.request_token_url.is_some() && (draft.authorize_url.is_none() || draft.token_url.is_none()) {
        problems.say(at, "`request_token_url` begins a trip over `authorize_url` and `token_url`: all three are needed", None);
    }
    if draft.issuer.is_some() || draft.par_url.is_some() || draft.device_authorization_url.is_some() {
        let hint = "OAuth 1.0a has three URLs: `request_token_url`, `authorize_url` and `token_url`";
        problems.say(
            at,
            "a provider speaks OAuth 1.0a or 2.0: `issuer`, `par_url` and `device_authorization_url` are of 2.0",
            Some(hint.into()),
        );
    }
    if !signs_by_key(draft) {
        if !has_secret {
            problems.say(at, "OAuth 1.0a signs each request by the client's secret: `client_secret` is needed", None);
        }
        return None;
    }
    let Some(pem) = client_key else {
        let hint = "write `client_key: ${file:./key.pem}`; its public half is registered at the provider";
        problems.say(at, "`signature: RSA-SHA1` needs `client_key`", Some(hint.into()));
        return None;
    };
    match RsaKey::parse(Secret::new(pem)) {
        Ok(key) => Some(key),
        Err(fault) => {
            problems.say(key_at, format!("`client_key` {fault}"), None);
            None
        }
    }
}

/// The checked whole.
pub(super) fn build(draft: &Draft, client_secret: Option<&Secret>, key: Option<RsaKey>) -> Option<OAuth1> {
    if !is_spoken(draft) {
        return None;
    }
    let method = match (draft.oauth1.signature, key) {
        (Some(Word::RsaSha1), Some(key)) => Method::RsaSha1(key),
        (Some(Word::HmacSha256), _) => Method::HmacSha256,
        (Some(Word::Plaintext), _) => Method::Plaintext,
        // Without its key a registration is off or has a fault that was told.
        (Some(Word::HmacSha1 | Word::RsaSha1) | None, _) => Method::HmacSha1,
    };
    let consumer = Consumer {
        key: draft.client_id.clone().unwrap_or_default(),
        secret: client_secret.cloned().unwrap_or_default(),
        method,
        realm: draft.oauth1.realm.clone(),
    };
    Some(OAuth1 {
        consumer: Arc::new(consumer),
        request_token_url: draft.oauth1.request_token_url.clone(),
        confirms_callback: draft.oauth1.confirms_callback.unwrap_or(true),
    })
}

/// `attach: oauth1` as it is read, before it is known who signs.
pub(super) fn unsigned() -> Scheme {
    Scheme::OAuth1(Arc::default())
}

/// The scheme with the signer put in. `None`: it says `oauth1`, and the provider does not.
pub(super) fn signed_by(scheme: Scheme, oauth1: Option<&OAuth1>) -> Option<Scheme> {
    match scheme {
        Scheme::OAuth1(_) => oauth1.map(|oauth1| Scheme::OAuth1(Arc::clone(&oauth1.consumer))),
        other => Some(other),
    }
}
