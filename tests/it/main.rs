//! What a user of Attaché sees, end to end: the real listeners, the sandbox provider and scripted upstreams, over real sockets.
//!
//! Tests that a row of the threat table asks for carry its number in their name (`threat_03_…`).

#![allow(unreachable_pub, reason = "a test binary has nobody to reach it")]

mod browser;
mod harness;
mod process;
#[path = "../support/servers.rs"]
mod servers;
mod upstream;
mod wire;

mod absolute;
mod admin;
mod app_tokens;
mod callers;
mod calls;
mod catalogue;
mod cli;
mod cli_connect;
mod conformance;
mod connect;
mod connect_threats;
mod dpop;
mod expecting;
mod following;
mod grpc;
mod headers;
mod http2_in;
mod identity_threats;
mod jwt;
mod limits;
mod location;
mod logs;
mod metrics;
mod mtls;
mod notices;
mod oauth1;
mod origins;
mod own_calls;
mod photos;
mod placeholder;
mod rate_limit;
mod recent;
mod reload;
mod replicas;
mod retry;
mod rewriting;
mod secrets;
mod selecting;
mod sending;
mod shapes;
mod smuggling;
mod smuggling_property;
mod store_ops;
mod streaming;
mod tls;
mod tokens;
mod trust;
mod upgrades;
mod upkeep;
