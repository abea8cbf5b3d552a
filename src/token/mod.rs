//! Floor 4: the keeper of tokens: a fresh credential for each call, and one refresh in flight a connection.
//!
//! A call that finds a fresh token waits for nothing ([`Keeper::fresh`]). Whatever else is needed is done by a spawned *flight*, one at a time
//! per connection, which no client can cancel and every waiting call joins; the refresh token is read inside it, and what it brings is on disk
//! before any call sees it. Where the registration says so, and for the app's own, a token is minted anew instead of refreshed (`mint`).
//! Invariants: no refresh without an intent on disk; no token published that a later change of its record overtook;
//! only an `invalid_grant`-class answer ends a grant. Across replicas a lease spares calls (`lease`), and the store's compare-and-swap decides.

mod census;
mod failpoint;
mod gate;
mod journal;
mod keeper;
mod lease;
mod mint;
mod outage;
mod own;
mod refresh;
mod resolve;
mod schedule;
mod settle;
mod table;
mod upkeep;

pub use keeper::{Keeper, KeeperError, Token};
pub use own::{Own, OwnFault};
pub use resolve::Registrations;

#[cfg(test)]
mod tests;
