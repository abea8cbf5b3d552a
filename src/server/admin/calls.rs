//! Every call of the admin API in one table: what dispatches requests is what the OpenAPI document is made of, so that the two cannot differ.

use http::Method;
use std::borrow::Cow;

/// What an admin token must allow for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allow {
    Connect,
    Read,
    Write,
    Tokens,
}

impl Allow {
    pub(super) fn word(self) -> &'static str {
        match self {
            Allow::Connect => "connect",
            Allow::Read => "read",
            Allow::Write => "write",
            Allow::Tokens => "tokens",
        }
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    CreateSession,
    ShowSession,
    CompleteSession,
    CreateDevice,
    ShowDevice,
    ListConnections,
    ExportConnections,
    ShowConnection,
    PutConnection,
    PatchConnection,
    DeleteConnection,
    RefreshConnection,
    ShowToken,
    Reload,
    Routes,
    Providers,
    Explain,
    Calls,
    CheckStore,
    StoreRecords,
    Rekey,
    CloseGate,
    OpenGate,
    OpenApi,
}

/// A parameter in the query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) kind: QueryKind,
    pub(super) required: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum QueryKind {
    Text,
    Number { least: u64, most: u64 },
    OneOf(&'static [&'static str]),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) method: &'static str,
    /// `{name}` is one segment, percent-decoded once.
    pub(super) path: &'static str,
    pub(super) allow: Allow,
    pub(super) says: &'static str,
    pub(super) query: &'static [Query],
    /// The name of the body's shape.
    pub(super) body: Option<&'static str>,
    /// What it answers when it does its work: status, shape, and when.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    /// Errors besides those that every call has.
    pub(super) errors: &'static [(u16, &'static str)],
}

pub(super) const STATES: &[&str] = &["pending", "active", "expired", "reconnect_required"];

const fn text(name: &'static str, says: &'static str) -> Query {
    Query { name, says, kind: QueryKind::Text, required: false }
}

const ACCOUNT: Query = text("account", "The account label; `default` if it is left out.");
const PROVIDER: Query = text("provider", "Of this provider alone.");
const CURSOR: Query = text("cursor", "The `next_cursor` of the page before.");
const LIMIT: Query = Query {
    name: "limit",
    says: "How many at most; 100 if it is left out.",
    kind: QueryKind::Number { least: 1, most: 1000 },
    required: false,
};
/// The kinds of records, by their names in the store.
const KIND: Query = Query {
    name: "kind",
    says: "Of which kind.",
    kind: QueryKind::OneOf(&["connections", "sessions", "intents", "outbox"]),
    required: true,
};
const RECORDS_LIMIT: Query = Query { kind: QueryKind::Number { least: 1, most: 256 }, ..LIMIT };
const NOT_FOUND: (u16, &str) = (404, "`not-found`: there is no such thing.");

pub(super) const CALLS: &[Call] = &[
    Call {
        op: Op::CreateSession,
        method: "POST",
        path: "/v1/connect-sessions",
        allow: Allow::Connect,
        says: "Make a link by which one end user's browser can connect. Give it to nobody else.",
        query: &[],
        body: Some("NewSession"),
        answers: &[(201, "Session", "The link, and the id to complete it with.")],
        errors: &[],
    },
    Call {
        op: Op::ShowSession,
        method: "GET",
        path: "/v1/connect-sessions/{session}",
        allow: Allow::Connect,
        says: "How far a session has come.",
        query: &[],
        body: None,
        answers: &[(200, "SessionState", "Its state.")],
        errors: &[NOT_FOUND],
    },
    Call {
        op: Op::CompleteSession,
        method: "POST",
        path: "/v1/connect-sessions/{session}/complete",
        allow: Allow::Connect,
        says: "Confirm a connection that was begun with `complete: app`: the back end knows who is logged in.",
        query: &[],
        body: Some("Completion"),
        answers: &[(200, "Connection", "It is active.")],
        errors: &[(403, "`forbidden`: the code or the end user does not fit; what was granted is discarded and revoked."), NOT_FOUND],
    },
    Call {
        op: Op::CreateDevice,
        method: "POST",
        path: "/v1/device-sessions",
        allow: Allow::Connect,
        says: "Begin the device flow (RFC 8628): the end user types a code in any browser.",
        query: &[],
        body: Some("NewDevice"),
        answers: &[(201, "Device", "What to show the end user.")],
        errors: &[(502, "`provider-failed`: the provider gave no code.")],
    },
    Call {
        op: Op::ShowDevice,
        method: "GET",
        path: "/v1/device-sessions/{id}",
        allow: Allow::Connect,
        says: "What became of a device session.",
        query: &[],
        body: None,
        answers: &[(200, "DeviceState", "Its state.")],
        errors: &[NOT_FOUND],
    },
    Call {
        op: Op::ListConnections,
        method: "GET",
        path: "/v1/connections",
        allow: Allow::Read,
        says: "Connections without their tokens, page by page in a fixed order.",
        query: &[
            PROVIDER,
            text("end_user", "Of this end user alone."),
            Query { name: "state", says: "In this state alone.", kind: QueryKind::OneOf(STATES), required: false },
            LIMIT,
            CURSOR,
        ],
        body: None,
        answers: &[(200, "ConnectionPage", "One page.")],
        errors: &[],
    },
    Call {
        op: Op::ExportConnections,
        method: "GET",
        path: "/v1/connections/export",
        allow: Allow::Read,
        says: "Connections with their tokens, sealed with the store's key: import lines for an Attaché that has the same key.",
        query: &[PROVIDER, LIMIT, CURSOR],
        body: None,
        answers: &[(200, "ExportPage", "One page.")],
        errors: &[],
    },
    Call {
        op: Op::ShowConnection,
        method: "GET",
        path: "/v1/connections/{provider}/{end_user}",
        allow: Allow::Read,
        says: "One connection without its tokens.",
        query: &[ACCOUNT],
        body: None,
        answers: &[(200, "Connection", "It.")],
        errors: &[NOT_FOUND],
    },
    Call {
        op: Op::PutConnection,
        method: "PUT",
        path: "/v1/connections/{provider}/{end_user}",
        allow: Allow::Write,
        says: "Import one connection. A known one stays the same one and gets these tokens.",
        query: &[ACCOUNT],
        body: Some("ImportLine"),
        answers: &[(200, "Connection", "A known connection has new tokens."), (201, "Connection", "It is new.")],
        errors: &[NOT_FOUND],
    },
    Call {
        op: Op::PatchConnection,
        method: "PATCH",
        path: "/v1/connections/{provider}/{end_user}",
        allow: Allow::Write,
        says: "Change the metadata: names with a value are set, names with null are removed.",
        query: &[ACCOUNT],
        body: Some("MetadataPatch"),
        answers: &[(200, "Connection", "It is changed.")],
        errors: &[NOT_FOUND],
    },
    Call {
        op: Op::DeleteConnection,
        method: "DELETE",
        path: "/v1/connections/{provider}/{end_user}",
        allow: Allow::Write,
        says: "Delete one connection, and revoke it at the provider where that can be (RFC 7009).",
        query: &[ACCOUNT],
        body: None,
        answers: &[(200, "Revocation", "It is deleted; this says what was revoked.")],
        errors: &[NOT_FOUND],
    },
    Call {
        op: Op::RefreshConnection,
        method: "POST",
        path: "/v1/connections/{provider}/{end_user}/refresh",
        allow: Allow::Write,
        says: "Refresh the access token now, also one that is still good.",
        query: &[ACCOUNT],
        body: None,
        answers: &[(200, "Connection", "It has a new token.")],
        errors: &[
            NOT_FOUND,
            (409, "`reconnect-required`: the grant is dead, or there is nothing to refresh it with."),
            (502, "`refresh-failed`: the provider gave no token just now; the grant is kept."),
        ],
    },
    Call {
        op: Op::ShowToken,
        method: "GET",
        path: "/v1/connections/{provider}/{end_user}/token",
        allow: Allow::Tokens,
        says: "A fresh access token, for what cannot go through the proxy. Only an admin token whose `allow` holds `tokens` may read it.",
        query: &[ACCOUNT],
        body: None,
        answers: &[(200, "Token", "It, refreshed first if it must be.")],
        errors: &[
            NOT_FOUND,
            (409, "`reconnect-required`: the grant is dead."),
            (502, "`refresh-failed`: the provider gave no token just now."),
        ],
    },
    Call {
        op: Op::Reload,
        method: "POST",
        path: "/v1/reload",
        allow: Allow::Write,
        says: "Read routes.yaml anew.",
        query: &[],
        body: None,
        answers: &[(200, "Reloaded", "It is live."), (422, "ConfigErrors", "It has errors; the old config stays.")],
        errors: &[],
    },
    Call {
        op: Op::Routes,
        method: "GET",
        path: "/v1/routes",
        allow: Allow::Read,
        says: "The routes that are live.",
        query: &[],
        body: None,
        answers: &[(200, "Routes", "They.")],
        errors: &[],
    },
    Call {
        op: Op::Providers,
        method: "GET",
        path: "/v1/providers",
        allow: Allow::Read,
        says: "The registrations that are live, each with the redirect URI to register.",
        query: &[],
        body: None,
        answers: &[(200, "Providers", "They.")],
        errors: &[],
    },
    Call {
        op: Op::Explain,
        method: "GET",
        path: "/v1/explain",
        allow: Allow::Read,
        says: "What a call would become, without making it.",
        query: &[
            text("method", "`GET` if it is left out."),
            Query { name: "url", says: "What the client app would call.", kind: QueryKind::Text, required: true },
            text("end_user", "On whose behalf."),
        ],
        body: None,
        answers: &[(200, "Explained", "It.")],
        errors: &[],
    },
    Call {
        op: Op::Calls,
        method: "GET",
        path: "/v1/calls",
        allow: Allow::Read,
        says: "The last calls through the proxy, newest first: some hundreds that went well, and as many that did not. With `Accept: text/event-stream` they come as they end, each an event `call`; `Last-Event-ID` goes on after one.",
        query: &[
            Query {
                name: "only",
                says: "`errors`: those alone that were answered 400 or more, or were cut.",
                kind: QueryKind::OneOf(&["errors"]),
                required: false,
            },
            text("route", "Of this route alone."),
            PROVIDER,
            text("connection", "With the token of this connection alone, by its id."),
            LIMIT,
        ],
        body: None,
        answers: &[(200, "Calls", "They.")],
        errors: &[(503, "`overloaded`: too many follow the calls already.")],
    },
    Call {
        op: Op::CheckStore,
        method: "GET",
        path: "/v1/store/check",
        allow: Allow::Read,
        says: "Open every record of the store, and tell what it holds, which keys sealed it and what does not open.",
        query: &[],
        body: None,
        answers: &[(200, "StoreCheck", "What was found; `whole` says whether everything opens.")],
        errors: &[],
    },
    Call {
        op: Op::StoreRecords,
        method: "GET",
        path: "/v1/store/records",
        allow: Allow::Write,
        says: "Records as they lie in the store, sealed with its keys: what a backup and a copy are made of.",
        query: &[KIND, RECORDS_LIMIT, CURSOR],
        body: None,
        answers: &[(200, "SealedPage", "One page, in the order of the keys. It ends with `next_cursor` null.")],
        errors: &[],
    },
    Call {
        op: Op::Rekey,
        method: "POST",
        path: "/v1/store/rekey",
        allow: Allow::Write,
        says: "Seal the records of one page anew that are not sealed with the first of the store's keys. Connect sessions that are under way may fail if theirs is sealed anew.",
        query: &[KIND, RECORDS_LIMIT, CURSOR],
        body: None,
        answers: &[(200, "Rekeyed", "What became of the page. The last one has `next_cursor` null.")],
        errors: &[],
    },
    Call {
        op: Op::CloseGate,
        method: "POST",
        path: "/v1/store/gate/close",
        allow: Allow::Write,
        says: "Stop all writes to the store, so that its last changes can be copied: fresh tokens are served, refreshes answer 503. Repeat it until the answer is `closed`: what is under way ends first.",
        query: &[],
        body: None,
        answers: &[(200, "StoreGate", "How far it is closed.")],
        errors: &[],
    },
    Call {
        op: Op::OpenGate,
        method: "POST",
        path: "/v1/store/gate/open",
        allow: Allow::Write,
        says: "Let writes to the store go on.",
        query: &[],
        body: None,
        answers: &[(200, "StoreGate", "It is open.")],
        errors: &[],
    },
    Call {
        op: Op::OpenApi,
        method: "GET",
        path: "/openapi.json",
        allow: Allow::Read,
        says: "This document.",
        query: &[],
        body: None,
        answers: &[(200, "OpenApi", "OpenAPI 3.1.")],
        errors: &[],
    },
];

/// A call that was found, with what its path holds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) call: &'static Call,
    pub(super) parts: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    NotFound,
    /// The methods that the path takes.
    Method(String),
    /// A part of the path is not text once decoded.
    BadPath,
}

/// The call that takes a request. A literal path goes before one with names; `HEAD` is `GET` without its body.
pub(super) fn find(method: &Method, path: &str) -> Result<Found, Missed> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    let mut best: Option<(usize, &Call, Vec<&str>)> = None;
    for call in CALLS {
        let Some(parts) = fit(call.path, path) else { continue };
        let names = parts.len();
        if let Some((fewest, ..)) = &best
            && *fewest <= names
            && call.method == method.as_str()
        {
            continue;
        }
        if call.method == method.as_str() { best = Some((names, call, parts)) } else { allowed.push(call.method) }
    }
    let Some((_, call, parts)) = best else {
        return Err(if allowed.is_empty() { Missed::NotFound } else { Missed::Method(allowed.join(", ")) });
    };
    let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8().map(Cow::into_owned).ok();
    let parts: Option<Vec<String>> = parts.into_iter().map(decode).collect();
    Ok(Found { call, parts: parts.ok_or(Missed::BadPath)? })
}

/// The raw segments that stand where the template has names.
fn fit<'p>(template: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    let mut parts = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parts),
            (Some(wanted), Some(part)) if wanted.starts_with('{') => parts.push(part),
            (Some(wanted), Some(part)) if wanted == part => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Result<(Op, Vec<String>), Missed> {
        find(&method.parse().expect("a method"), path).map(|found| (found.call.op, found.parts))
    }

    #[test]
    fn paths_lead_to_their_calls() {
        let parts = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(found("GET", "/v1/connections"), Ok((Op::ListConnections, parts(&[]))));
        assert_eq!(found("HEAD", "/v1/connections"), Ok((Op::ListConnections, parts(&[]))));
        assert_eq!(
            found("GET", "/v1/connections/google/megan%40personalemail.com"),
            Ok((Op::ShowConnection, parts(&["google", "megan@personalemail.com"])))
        );
        assert_eq!(
            found("GET", "/v1/connections/google/a%2Fb%252F"),
            Ok((Op::ShowConnection, parts(&["google", "a/b%2F"]))),
            "decoded once"
        );
        assert_eq!(found("POST", "/v1/connections/google/megan/refresh"), Ok((Op::RefreshConnection, parts(&["google", "megan"]))));
        assert_eq!(found("GET", "/v1/connections/export"), Ok((Op::ExportConnections, parts(&[]))));
        assert_eq!(found("POST", "/v1/connect-sessions/cs_x/complete"), Ok((Op::CompleteSession, parts(&["cs_x"]))));
        assert_eq!(found("DELETE", "/v1/reload"), Err(Missed::Method("POST".into())));
        assert_eq!(found("POST", "/v1/connections/google/megan"), Err(Missed::Method("GET, PUT, PATCH, DELETE".into())));
        assert_eq!(found("GET", "/v1/connections/google/%ff"), Err(Missed::BadPath));
        for path in ["/", "/v1", "/v1/connections/", "/v1/connections/a/b/c/d", "/v1/nothing"] {
            assert_eq!(found("GET", path), Err(Missed::NotFound), "{path}");
        }
    }

    #[test]
    fn every_call_has_one_row() {
        for (index, call) in CALLS.iter().enumerate() {
            assert!(
                !CALLS[..index].iter().any(|other| (other.method, other.path) == (call.method, call.path)),
                "{} {}",
                call.method,
                call.path
            );
        }
    }
}
