//! One notice to one target, as it stands in the outbox until it is delivered.

use super::event::Event;
use crate::base::clock::UnixMillis;
use crate::store::{OutboxWrite, StoreError};
use serde_json::{Value, json};
use std::time::Duration;

/// When it is tried again: the schedule that Standard Webhooks recommends, three days in all.
const RETRIES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];
/// How long one that was given up is kept to be seen.
pub(super) const DEAD_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The target's id.
    pub to: [u8; 8],
    /// The message's: the same for every target.
    pub id: String,
    pub event: Event,
    /// What is sent, to the byte: its signature is of these.
    pub body: String,
    pub made_at: UnixMillis,
    /// Tries that failed.
    pub failures: u32,
    /// Not before then.
    pub next_at: UnixMillis,
    /// Why the last try failed.
    pub error: Option<String>,
    /// Given up, and kept to be seen.
    pub dead: bool,
}

impl Letter {
    pub(super) fn new(to: [u8; 8], id: &str, event: Event, body: &str, now: UnixMillis) -> Letter {
        Letter { to, id: id.to_owned(), event, body: body.to_owned(), made_at: now, failures: 0, next_at: now, error: None, dead: false }
    }

    /// In the order of their making for each target.
    pub(super) fn key(&self) -> Vec<u8> {
        let made_at = u64::try_from(self.made_at.0).unwrap_or_default();
        self.to.iter().copied().chain(made_at.to_be_bytes()).chain(self.id.bytes()).collect()
    }

    pub(super) fn write(&self) -> OutboxWrite {
        let value = json!({
            "to": self.to.map(u64::from),
            "id": self.id,
            "event": self.event.name(),
            "body": self.body,
            "made_at": self.made_at.0,
            "failures": self.failures,
            "next_at": self.next_at.0,
            "error": self.error,
            "dead": self.dead,
        });
        OutboxWrite { key: self.key(), value: value.to_string().into_bytes() }
    }

    /// # Errors
    /// When the bytes are no letter that this version knows.
    pub(super) fn read(bytes: &[u8]) -> Result<Letter, StoreError> {
        let unfit = || StoreError::Damaged("a notice in the outbox is of a form that this version does not know".to_owned());
        let value: Value = serde_json::from_slice(bytes).map_err(|_| unfit())?;
        let text = |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(unfit);
        let number = |name: &str| value[name].as_i64().ok_or_else(unfit);
        let mut to = [0; 8];
        let said = value["to"].as_array().filter(|said| said.len() == to.len()).ok_or_else(unfit)?;
        for (byte, said) in to.iter_mut().zip(said) {
            *byte = said.as_u64().and_then(|byte| u8::try_from(byte).ok()).ok_or_else(unfit)?;
        }
        Ok(Letter {
            to,
            id: text("id")?,
            event: Event::from_name(&text("event")?).ok_or_else(unfit)?,
            body: text("body")?,
            made_at: UnixMillis(number("made_at")?),
            failures: u32::try_from(number("failures")?).map_err(|_| unfit())?,
            next_at: UnixMillis(number("next_at")?),
            error: value["error"].as_str().map(str::to_owned),
            dead: value["dead"].as_bool().ok_or_else(unfit)?,
        })
    }

    /// What becomes of it after a try that failed. `gone`: the receiver wants no more of them.
    pub(super) fn failed(mut self, why: String, wait_told: Option<Duration>, gone: bool, now: UnixMillis) -> Letter {
        let wait = usize::try_from(self.failures).ok().and_then(|tried| RETRIES.get(tried).copied());
        self.failures += 1;
        self.error = Some(why);
        match wait.filter(|_| !gone) {
            Some(wait) => self.next_at = now.plus(wait.max(wait_told.unwrap_or_default().min(Duration::from_secs(24 * 3600)))),
            None => {
                self.dead = true;
                self.next_at = now.plus(DEAD_FOR);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter::new(
            [1, 2, 3, 4, 5, 6, 7, 255],
            "msg_0",
            Event::RefreshFailing,
            "{\"type\":\"refresh.failing\"}",
            UnixMillis(1_767_225_600_000),
        )
    }

    #[test]
    fn what_is_written_is_read_back() {
        let letter = letter().failed("the receiver answered 500".to_owned(), None, false, UnixMillis(1_767_225_601_000));
        assert_eq!(Letter::read(&letter.write().value).expect("read"), letter);
        for broken in [&b""[..], b"{}", b"[]", b"{\"to\":[1,2,3,4,5,6,7,256]}"] {
            Letter::read(broken).expect_err("refused");
        }
    }

    #[test]
    fn it_is_tried_for_days_and_then_kept_to_be_seen() {
        let (mut letter, mut now, mut tries) = (letter(), UnixMillis(1_767_225_600_000), 0);
        while !letter.dead {
            now = letter.next_at;
            letter = letter.failed("no answer".to_owned(), None, false, now);
            tries += 1;
        }
        assert_eq!(tries, 10);
        assert!(now.since(letter.made_at) > Duration::from_secs(3 * 24 * 3600), "{:?}", now.since(letter.made_at));
        assert_eq!(letter.next_at, now.plus(DEAD_FOR));
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_or_for_no_more() {
        let now = UnixMillis(1_767_225_600_000);
        let later = letter().failed(String::new(), Some(Duration::from_secs(60)), false, now);
        assert_eq!(later.next_at, now.plus(Duration::from_secs(60)));
        assert!(letter().failed(String::new(), None, true, now).dead);
    }
}
