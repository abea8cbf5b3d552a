//! Floor 2: notices of what an operator or the client app wants to hear of without asking (contract §8).
//!
//! What is to be told is written into the store's outbox, where it can be in the same batch as the change that it tells of, and is delivered from
//! there at least once (`deliver.rs`): to webhooks in the Standard Webhooks format (`webhook.rs`), or to a program of the operator's. One notice a
//! change of state, not one a failure: who writes a change tells it, and a state that lasts is told once.

mod deliver;
mod event;
mod letter;
mod webhook;

pub use deliver::{Delivered, Deliverer, deliver_now};
pub use event::{Event, Fact};
pub use letter::Letter;
pub use webhook::WebhookSecret;

use crate::base::clock::Clock;
use crate::base::digest::sha256;
use crate::base::ids::random_bytes;
use crate::store::OutboxWrite;
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;

/// Where notices of some events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Of what it is, so that it is the same one after an edit of other targets.
    pub id: [u8; 8],
    pub way: Way,
    /// Those that it wants to hear of.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// `https`, or `http` to loopback.
    Webhook { url: Box<str>, secret: WebhookSecret },
    /// A program and its arguments; the notice's body comes on its standard input.
    Exec { argv: Vec<Box<str>> },
}

impl Target {
    pub fn new(way: Way, events: Vec<Event>) -> Target {
        let said = match &way {
            Way::Webhook { url, .. } => format!("webhook\0{url}"),
            Way::Exec { argv } => format!("exec\0{}", argv.join("\0")),
        };
        let mut id = [0; 8];
        id.iter_mut().zip(sha256(said)).for_each(|(to, from)| *to = from);
        Target { id, way, events }
    }

    /// What it is called in logs: never more of a URL than its host, for its path may be a secret.
    pub fn name(&self) -> String {
        match &self.way {
            Way::Webhook { url, .. } => {
                let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
                format!("webhook {}", host.rsplit('@').next().unwrap_or_default())
            }
            Way::Exec { argv } => format!("exec {}", argv.first().map_or("", |program| &**program)),
        }
    }
}

/// `notify` as the live config has it.
pub type Targets = Arc<[Target]>;

/// Where notices are begun: it knows who wants to hear of what.
pub struct Desk {
    targets: ArcSwap<Vec<Target>>,
    clock: Arc<dyn Clock>,
}

impl Desk {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Desk> {
        Arc::new(Desk { targets: ArcSwap::default(), clock })
    }

    pub fn set_targets(&self, targets: &Targets) {
        self.targets.store(Arc::new(targets.to_vec()));
    }

    pub fn targets(&self) -> Arc<Vec<Target>> {
        self.targets.load_full()
    }

    /// The letters of one event, one for each target that wants it, for the batch that writes the change. None where nobody does.
    pub fn letters(&self, event: Event, fact: &Fact<'_>) -> Vec<OutboxWrite> {
        let targets = self.targets.load();
        let mut wanting = targets.iter().filter(|target| target.events.contains(&event)).peekable();
        if wanting.peek().is_none() {
            return Vec::new();
        }
        let now = self.clock.now();
        let id = message_id();
        let body = event::body(event, fact, now);
        wanting.map(|target| Letter::new(target.id, &id, event, &body, now).write()).collect()
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("targets", &self.targets.load().len()).finish_non_exhaustive()
    }
}

/// `msg_` and 128 random bits: what a receiver knows a notice by that comes twice.
fn message_id() -> String {
    let random: [u8; 16] = random_bytes();
    random.iter().fold("msg_".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}
