//! Attaché, the sidecar that attaches tokens: a transparent reverse proxy that matches a request against `routes.yaml`, takes the end user's
//! OAuth token from its store, refreshes it if it must, attaches it, forwards over TLS and streams the answer back.
//!
//! The modules in reading order, from the ground up; each imports lower floors only (`docs/ARCHITECTURE.md` tells why, a test holds it):
//!
//! | floor | module | job |
//! |---|---|---|
//! | 0 | [`base`] | secrets, clock, ids, credentials, backoff, problem+json |
//! | 1 | [`route`] | which route takes a request, and what its path and query become |
//! | 1 | [`attach`] | how a credential goes on a request |
//! | 1 | [`identity`] | who is the end user, who is the caller |
//! | 1 | [`store`] | where records live, sealed |
//! | 1 | [`upstream`] | the one way out to any network |
//! | 1 | [`limit`] | how many calls a route takes |
//! | 2 | [`provider`] | a provider and its registration, as checked data |
//! | 3 | [`config`] | `routes.yaml` to a checked snapshot, and its live reload |
//! | 3 | [`oauth`] | the one caller of token endpoints |
//! | 4 | [`token`] | a fresh credential, one refresh in flight a connection |
//! | 5 | [`proxy`] | the path of a call |
//! | 5 | [`connect`] | the way to a connection, and what is done with one afterwards |
//! | 6 | [`server`] | listeners, workers, admin API, drain |
//! | – | [`sandbox`] | a provider of our own for development and tests |
//! | 7 | [`app`] | puts the parts together |
//! | 8 | [`cli`] | the command line |

pub mod app;
pub mod attach;
pub mod base;
pub mod cli;
pub mod config;
pub mod connect;
pub mod identity;
pub mod limit;
pub mod log;
pub mod metrics;
pub mod notices;
pub mod oauth;
pub mod provider;
pub mod proxy;
pub mod route;
pub mod sandbox;
pub mod server;
pub mod store;
pub mod token;
pub mod upstream;
