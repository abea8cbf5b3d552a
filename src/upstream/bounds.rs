//! How much one worker sends to upstreams at once, and when it stops asking one that is down: `upstreams:` of the config.

use std::time::Duration;

/// Numbers are of one upstream (origin and client certificate) and one worker; there is a worker a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections to one upstream.
    pub connections_max: usize,
    /// Calls that wait for one of them.
    pub waiting_max: usize,
    /// How long one waits.
    pub wait: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
    /// Calls in flight to all upstreams together.
    pub calls_max: usize,
    /// `None`: no circuit opens.
    pub circuit: Option<CircuitBounds>,
}

/// When calls to an upstream are refused without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBounds {
    /// Failures one after another, of all workers, that open it.
    pub failures: u32,
    /// How long it is open the first time; doubled each time that the probe behind it fails.
    pub open: Duration,
    pub open_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections_max: 512,
            waiting_max: 1024,
            wait: Duration::from_secs(5),
            // Most servers and load balancers keep theirs for 60 s or longer.
            idle: Duration::from_secs(50),
            calls_max: 10_000,
            circuit: Some(CircuitBounds::default()),
        }
    }
}

impl Default for CircuitBounds {
    fn default() -> Self {
        CircuitBounds { failures: 20, open: Duration::from_secs(1), open_max: Duration::from_secs(60) }
    }
}
