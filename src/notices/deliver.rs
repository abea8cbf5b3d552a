//! Delivery from the outbox, at least once: what was sent is deleted only when its receiver said so; what was not is tried for days.

use super::letter::Letter;
use super::{Desk, Event, Fact, Target, Way, event, message_id, webhook};
use crate::base::clock::{Clock, UnixMillis};
use crate::base::retry_after::retry_after;
use crate::store::{Holder, Lease, Records, StoreError};
use crate::upstream::Fetch;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::broadcast::error::RecvError;

/// How long one try may take.
const WITHIN: Duration = Duration::from_secs(15);
/// Letters on their way at once.
const AT_ONCE: usize = 8;
/// Letters that are looked at in one round.
const PAGE: usize = 512;
/// The longest sleep between two looks, and the shortest.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Who delivers, where replicas share a store.
const LEASE: &[u8] = b"notices";
const LEASE_FOR: Duration = Duration::from_secs(60);

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    Yes,
    No {
        why: String,
        /// `Retry-After`.
        wait: Option<Duration>,
        /// 410: the receiver wants no more.
        gone: bool,
    },
}

impl Delivered {
    fn no(why: impl Into<String>) -> Delivered {
        Delivered::No { why: why.into(), wait: None, gone: false }
    }
}

/// Takes letters from the outbox to their receivers.
pub struct Deliverer {
    pub desk: Arc<Desk>,
    pub records: Records,
    pub fetch: Fetch,
    pub clock: Arc<dyn Clock>,
}

impl Deliverer {
    /// Delivers until the process ends.
    pub async fn run(self, holder: Holder) {
        let mut changes = self.records.watch();
        loop {
            let next = match self.is_mine(holder).await {
                false => None,
                true => self.round().await.unwrap_or_else(|error| {
                    tracing::debug!(error = %error, "the outbox could not be read or written");
                    None
                }),
            };
            let wait = next.map_or(LOOK_EVERY, |next| next.since(self.clock.now()).clamp(PAUSE, LOOK_EVERY));
            let sleep = tokio::time::sleep(wait);
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    () = &mut sleep => break,
                    change = changes.recv() => match change {
                        Ok(change) if change.kind == crate::store::Kind::Outbox && change.version == Some(1) => break,
                        Ok(_) => {}
                        // What was missed may have been a letter.
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                }
            }
        }
    }

    async fn is_mine(&self, holder: Holder) -> bool {
        matches!(self.records.lease(LEASE, holder, LEASE_FOR).await, Ok(Lease::Held))
    }

    /// Tries everything that is due; answers when the next one is.
    ///
    /// # Errors
    /// When the store fails; what was delivered meanwhile may be delivered again.
    pub async fn round(&self) -> Result<Option<UnixMillis>, StoreError> {
        let targets = self.desk.targets();
        let (mut after, mut next): (Option<Vec<u8>>, Option<UnixMillis>) = (None, None);
        loop {
            let page = self.records.outbox(after.as_deref(), PAGE).await?;
            let Some((last, ..)) = page.last() else { return Ok(next) };
            after = Some(last.clone());
            let now = self.clock.now();
            let mut due = Vec::new();
            for (key, version, bytes) in page {
                let letter = match Letter::read(&bytes) {
                    Ok(letter) => letter,
                    Err(error) => {
                        tracing::warn!(error = %error, "a notice is left where it is");
                        continue;
                    }
                };
                if letter.next_at > now {
                    next = Some(next.map_or(letter.next_at, |next| next.min(letter.next_at)));
                } else {
                    due.push((key, version, letter));
                }
            }
            let tries = stream::iter(due).map(|(key, version, letter)| self.one(&targets, key, version, letter)).buffer_unordered(AT_ONCE);
            let ends: Vec<_> = tries.collect().await;
            for end in ends {
                next = [next, end?].into_iter().flatten().min();
            }
        }
    }

    /// One letter's try, and what becomes of it on disk; answers when it is due again.
    async fn one(&self, targets: &[Target], key: Vec<u8>, version: u64, letter: Letter) -> Result<Option<UnixMillis>, StoreError> {
        let target = targets.iter().find(|target| target.id == letter.to);
        // Dead ones that were kept long enough, and those whose target the config no longer has.
        let Some(target) = target.filter(|_| !letter.dead) else {
            return self.records.strike_letter(&key, version).await.map(|()| None);
        };
        match deliver(&self.fetch, target, &letter.id, letter.event, &letter.body, self.clock.now()).await {
            Delivered::Yes => {
                tracing::info!(notice.id = %letter.id, notice.event = letter.event.name(), target = %target.name(), "a notice was delivered");
                self.records.strike_letter(&key, version).await.map(|()| None)
            }
            Delivered::No { why, wait, gone } => {
                let letter = letter.failed(why, wait, gone, self.clock.now());
                let (id, failures) = (&letter.id, letter.failures);
                let why = letter.error.as_deref().unwrap_or_default();
                if letter.dead {
                    tracing::error!(notice.id = %id, notice.event = letter.event.name(), target = %target.name(), failures, why, "a notice was given up");
                } else {
                    tracing::warn!(notice.id = %id, notice.event = letter.event.name(), target = %target.name(), failures, why, "a notice was not delivered: it is tried again");
                }
                self.records.keep_letter(letter.write(), version).await.map(|()| Some(letter.next_at))
            }
        }
    }
}

/// Sends a test to one target, without the outbox.
pub async fn deliver_now(fetch: &Fetch, target: &Target, now: UnixMillis) -> Delivered {
    let body = event::body(Event::Test, &Fact::Test, now);
    deliver(fetch, target, &message_id(), Event::Test, &body, now).await
}

async fn deliver(fetch: &Fetch, target: &Target, id: &str, event: Event, body: &str, now: UnixMillis) -> Delivered {
    match &target.way {
        Way::Webhook { url, secret } => match webhook::request(url, secret, id, body, now) {
            Ok(request) => post(fetch, request, now).await,
            Err(error) => Delivered::no(format!("the webhook's URL cannot be called: {error}")),
        },
        Way::Exec { argv } => exec(argv, id, event, body).await,
    }
}

async fn post(fetch: &Fetch, request: Request<Bytes>, now: UnixMillis) -> Delivered {
    let answer = match fetch.clone().with_timeout(WITHIN).send(request).await {
        Ok(answer) => answer,
        Err(error) => return Delivered::no(error.to_string()),
    };
    let status = answer.status();
    if status.is_success() {
        return Delivered::Yes;
    }
    let wait = answer.headers().get(RETRY_AFTER).and_then(|told| retry_after(told.to_str().ok()?, now));
    Delivered::No { why: format!("the receiver answered {status}"), wait, gone: status == StatusCode::GONE }
}

/// Runs the program to its end, with the body on its standard input. It inherits no other handle and is killed when it takes too long.
async fn exec(argv: &[Box<str>], id: &str, event: Event, body: &str) -> Delivered {
    let Some((program, arguments)) = argv.split_first() else { return Delivered::no("there is no program to run") };
    let mut command = Command::new(&**program);
    command.args(arguments.iter().map(|argument| &**argument));
    command.env("ATTACHE_EVENT", event.name()).env("ATTACHE_NOTICE_ID", id);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that reads nothing is no fault.
            let _ = input.write_all(body.as_bytes()).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(WITHIN, run).await {
        Ok(Ok(status)) if status.success() => Delivered::Yes,
        Ok(Ok(status)) => Delivered::no(format!("`{program}` ended with {status}")),
        Ok(Err(error)) => Delivered::no(format!("`{program}` cannot be run: {error}")),
        Err(_) => Delivered::no(format!("`{program}` did not end within {} s", WITHIN.as_secs())),
    }
}
