//! What can be told, and the body that tells it: Standard Webhooks' `{type, timestamp, data}`.

use crate::base::clock::UnixMillis;
use crate::store::Connection;
use serde_json::{Value, json};

/// An event's kind (contract §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// An end user connected, or a connection was imported.
    ConnectionCreated,
    /// The provider refused the grant: only the end user can mend it.
    ConnectionReconnectRequired,
    ConnectionDeleted,
    /// Refreshes of a connection failed several times in a row; they are tried on.
    RefreshFailing,
    RefreshRecovered,
    /// A provider's token endpoint answers nobody.
    ProviderOutage,
    ProviderRecovered,
    /// Many calls on a route end in errors.
    UpstreamErrors,
    /// An edit of the config was refused; the old one stays.
    ConfigRefused,
    /// Sent by `attache notify test` alone.
    Test,
}

impl Event {
    /// Those that a target may want.
    pub const ALL: [Event; 9] = [
        Event::ConnectionCreated,
        Event::ConnectionReconnectRequired,
        Event::ConnectionDeleted,
        Event::RefreshFailing,
        Event::RefreshRecovered,
        Event::ProviderOutage,
        Event::ProviderRecovered,
        Event::UpstreamErrors,
        Event::ConfigRefused,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Event::ConnectionCreated => "connection.created",
            Event::ConnectionReconnectRequired => "connection.reconnect_required",
            Event::ConnectionDeleted => "connection.deleted",
            Event::RefreshFailing => "refresh.failing",
            Event::RefreshRecovered => "refresh.recovered",
            Event::ProviderOutage => "provider.outage",
            Event::ProviderRecovered => "provider.recovered",
            Event::UpstreamErrors => "upstream.errors",
            Event::ConfigRefused => "config.refused",
            Event::Test => "test",
        }
    }

    pub fn from_name(name: &str) -> Option<Event> {
        Event::ALL.into_iter().chain([Event::Test]).find(|event| event.name() == name)
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub enum Fact<'a> {
    /// A connection as it stands after the change; its tokens are not told.
    Connection(&'a Connection),
    /// A provider, and what is the matter in words of our own.
    Provider {
        id: &'a str,
        detail: &'a str,
    },
    /// A route likewise.
    Route {
        name: &'a str,
        detail: &'a str,
    },
    /// Each error's place and words.
    Config {
        errors: &'a [String],
    },
    Test,
}

/// The body as it is sent and signed. It holds no token.
pub(super) fn body(event: Event, fact: &Fact<'_>, now: UnixMillis) -> String {
    let data = match fact {
        Fact::Connection(connection) => of_connection(connection),
        Fact::Provider { id, detail } => json!({"provider": id, "detail": detail}),
        Fact::Route { name, detail } => json!({"route": name, "detail": detail}),
        Fact::Config { errors } => json!({"errors": errors}),
        Fact::Test => json!({"detail": "A test: Attaché's notices come through."}),
    };
    json!({"type": event.name(), "timestamp": now.to_rfc3339(), "data": data}).to_string()
}

fn of_connection(connection: &Connection) -> Value {
    let key = &connection.key;
    json!({
        "id": connection.id,
        "provider": key.provider,
        "end_user": key.end_user,
        "account": key.account,
        "state": connection.state.name(),
        "last_error": connection.last_error,
        "refresh_failures": connection.refresh_failures,
    })
}
