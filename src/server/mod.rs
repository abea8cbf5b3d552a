//! Floor 6: listeners and the connections on them: the proxy's workers, the public pages, the admin API, health, and the drain at the end.

pub mod admin;
mod body;
mod connection;
pub mod control;
pub mod listen;
pub mod pages;
pub mod public;
mod sniff;
mod stall;
pub mod tls;
pub mod worker;

pub use listen::BindError;
pub use tls::{Tls, Which};
pub use worker::{Port, Workers};

/// What a server is doing, as told to all that accept or serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// No new connections; those in use finish their call and close.
    Draining,
    /// Whatever is left is dropped.
    Stopping,
}
