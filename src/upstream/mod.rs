//! Floor 1: the one way out to any network: origins, DNS and TCP, TLS, the pools of the data plane and the one-shot client of the control plane.

pub mod bounds;
pub mod circuit;
pub mod connect;
pub mod dns;
pub mod fetch;
pub mod identity;
mod numbers;
pub mod origin;
mod pinned;
pub mod pool;
pub mod reach;
pub mod tls;
pub mod trust;
pub mod upgrade;

pub use bounds::{Bounds, CircuitBounds};
pub use circuit::{Circuit, Pass};
pub use connect::{ConnectError, ConnectFault, Connector, keepalive};
pub use fetch::{Fetch, FetchError, FetchFault};
pub use identity::{IdentityFault, TlsIdentity, certified};
pub use origin::{BadHost, Origin, OriginId};
pub use pool::{Lease, Pool, SendFault, Stage, Unsent};
pub use reach::Reach;
pub use tls::TlsRoots;
pub use trust::{Trust, TrustFault};
pub use upgrade::{Continue, Said, Upgrades};
