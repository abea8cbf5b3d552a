//! Floor 3: `routes.yaml` and the provider files, read, checked as a whole and swapped as one.
//!
//! Text becomes a tree with places (`yaml`), variables are filled in (`interpolate`), and one file a section reads its keys (`fields`),
//! collecting every fault with file, line, column and the nearest known name. Nothing goes live unless all of it is right. Deliberately
//! absent: any fetch; a config is made of local files and the environment alone.

mod absolute;
mod definition;
pub mod error;
mod exchange;
mod fields;
mod headers;
mod interpolate;
mod jwt;
mod limit;
mod listen;
mod listen_tls;
mod load;
mod log;
mod logo;
mod metrics;
mod mint;
mod node;
mod notify;
mod oauth1;
mod origins;
mod people;
mod proofs;
mod providers;
mod raw;
mod registration;
pub mod reload;
mod routes;
mod scalar;
pub mod snapshot;
mod sources;
mod special;
mod startup;
mod upstream_url;
mod upstreams;
mod watch;
pub mod yaml;

pub use error::{ConfigError, ConfigErrors};
pub use load::{definitions, load, load_str};
pub use providers::Definition;
pub use raw::{definition_schema, schema};
pub use reload::{Live, LiveEnv, Reloaded};
pub use snapshot::{
    ActAs, AdminToken, AdminTokens, Bind, BodySource, Connect, Guard, HeaderEdits, HeaderSource, HostSent, KeySource, Listener,
    ListenerTls, Logo, MetricsRules, OriginListener, ResponseAs, Retry, Route, RouteOrigin, SendAs, ServerTls, SharedStore, Snapshot,
    Special, Startup, StoreKind, Timeouts,
};
pub use sources::Env;

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream_tests;
