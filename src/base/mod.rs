//! Floor 0: small pure types that every room may use. Nothing here does I/O but the system clock and the random source.

pub mod backoff;
pub mod clock;
pub mod credential;
pub mod digest;
pub mod ids;
pub mod loopback;
pub mod problem;
pub mod retry_after;
pub mod secret;
