//! A survey of everything in a store: how many records of which kind and state, which key sealed them, and which do not open.

use crate::base::digest::sha256;
use crate::base::ids::ConnectionKey;
use crate::store::pages::Walk;
use crate::store::records::parse_key;
use crate::store::seal::{KeyId, Sealer};
use crate::store::{Kind, Records, State, StoreError, codec};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// How many faults are told one by one; the others are counted.
const FAULTS_MAX: usize = 100;

/// Why a record does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It was sealed with a key that is not configured.
    KeyMissing,
    /// A newer attache wrote it.
    Newer,
    /// Its bytes are not what was written.
    Broken,
}

impl Flaw {
    pub fn name(self) -> &'static str {
        match self {
            Flaw::KeyMissing => "key_missing",
            Flaw::Newer => "newer",
            Flaw::Broken => "broken",
        }
    }
}

/// One record that does not open.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: Kind,
    /// Which record, escaped for people: provider, end user and account of a connection, else a hash of its key.
    pub record: String,
    pub flaw: Flaw,
    pub why: String,
}

impl Fault {
    pub fn to_json(&self) -> Value {
        json!({"kind": self.kind.name(), "record": self.record, "flaw": self.flaw.name(), "why": self.why})
    }
}

/// A record that opened.
pub struct Examined {
    pub plain: Zeroizing<Vec<u8>>,
    pub sealed_with: Option<KeyId>,
    /// A connection's.
    pub state: Option<State>,
}

/// Opens one record and reads it, where its form is this room's own.
///
/// # Errors
/// What is wrong with it.
pub fn examine(sealer: &Sealer, kind: Kind, key: &[u8], envelope: &[u8]) -> Result<Examined, Box<Fault>> {
    let fault = |flaw: Flaw, error: &StoreError| {
        let why = match error {
            StoreError::Damaged(why) | StoreError::Unavailable(why) => why.clone(),
            StoreError::Conflict => error.to_string(),
        };
        Box::new(Fault { kind, record: name_of(kind, key), flaw, why })
    };
    let sealed_with = KeyId::of_envelope(envelope);
    let plain = sealer.open(kind, key, envelope).map_err(|error| {
        let flaw = match sealed_with {
            _ if Sealer::is_newer(envelope) => Flaw::Newer,
            Some(id) if !sealer.knows(id) => Flaw::KeyMissing,
            _ => Flaw::Broken,
        };
        fault(flaw, &error)
    })?;
    let unreadable = |error: StoreError| fault(if codec::is_newer(&plain) { Flaw::Newer } else { Flaw::Broken }, &error);
    let state = match kind {
        Kind::Connection => {
            let connection = parse_key(kind, key).and_then(|key| codec::decode_connection(key, &plain));
            Some(connection.map_err(unreadable)?.state)
        }
        Kind::Intent => parse_key(kind, key).and_then(|key| codec::decode_intent(key, &plain)).map(|_| None).map_err(unreadable)?,
        Kind::Session | Kind::Outbox => None,
    };
    Ok(Examined { plain, sealed_with, state })
}

/// A record's name for people. Names come from clients and providers, so that they are escaped.
pub fn name_of(kind: Kind, key: &[u8]) -> String {
    let parts = matches!(kind, Kind::Connection | Kind::Intent).then(|| ConnectionKey::from_bytes(key)).flatten();
    match parts {
        Some(key) => format!("{} {} {}", key.provider.escape_debug(), key.end_user.escape_debug(), key.account.escape_debug()),
        None => sha256(key)[..8].iter().fold("#".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Survey {
    records: BTreeMap<Kind, u64>,
    states: BTreeMap<&'static str, u64>,
    keys: BTreeMap<KeyId, u64>,
    first: Option<KeyId>,
    /// Records that open, but not with the first key.
    rekey: BTreeMap<Kind, u64>,
    faults: Vec<Fault>,
    faults_total: u64,
}

impl Survey {
    pub fn is_whole(&self) -> bool {
        self.faults_total == 0
    }

    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Takes one record in.
    pub fn take(&mut self, sealer: &Sealer, kind: Kind, key: &[u8], envelope: &[u8]) -> Result<(), Box<Fault>> {
        self.first = sealer.first();
        *self.records.entry(kind).or_default() += 1;
        if let Some(id) = KeyId::of_envelope(envelope) {
            *self.keys.entry(id).or_default() += 1;
        }
        match examine(sealer, kind, key, envelope) {
            Ok(examined) => {
                if let Some(state) = examined.state {
                    *self.states.entry(state.name()).or_default() += 1;
                }
                if examined.sealed_with != sealer.first() {
                    *self.rekey.entry(kind).or_default() += 1;
                }
                Ok(())
            }
            Err(fault) => {
                self.faults_total += 1;
                if self.faults.len() < FAULTS_MAX {
                    self.faults.push((*fault).clone());
                }
                Err(fault)
            }
        }
    }

    /// As the admin API and `--json` show it.
    pub fn to_json(&self) -> Value {
        let by_kind = |counts: &BTreeMap<Kind, u64>| -> Map<String, Value> {
            Kind::ALL.iter().map(|kind| (kind.name().to_owned(), counts.get(kind).copied().unwrap_or(0).into())).collect()
        };
        let states = [State::Pending, State::Active, State::Expired, State::ReconnectRequired].map(State::name);
        let states: Map<String, Value> =
            states.iter().map(|name| ((*name).to_owned(), self.states.get(name).copied().unwrap_or(0).into())).collect();
        let keys = self.keys.iter().map(|(id, count)| json!({"key": id.to_string(), "records": count, "first": self.first == Some(*id)}));
        json!({
            "whole": self.is_whole(),
            "records": by_kind(&self.records),
            "states": states,
            "first_key": self.first.map(|id| id.to_string()),
            "keys": keys.collect::<Vec<_>>(),
            "rekey_needed": by_kind(&self.rekey),
            "faults": self.faults.iter().map(Fault::to_json).collect::<Vec<_>>(),
            "faults_total": self.faults_total,
        })
    }
}

impl Records {
    /// Opens every record once.
    ///
    /// # Errors
    /// When the store itself cannot be read.
    pub async fn survey(&self) -> Result<Survey, StoreError> {
        let mut survey = Survey { first: self.sealer.first(), ..Survey::default() };
        for kind in Kind::ALL {
            let mut walk = Walk::new(self, kind);
            while let Some((key, stored)) = walk.next().await? {
                // A fault is kept in the survey.
                let _ = survey.take(&self.sealer, kind, &key, &stored.value);
            }
        }
        Ok(survey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;
    use crate::store::codec::tests::full;
    use crate::store::contract::put;
    use crate::store::memory::MemoryStore;
    use crate::store::seal::SealingKey;
    use crate::store::{Expect, Intent, Store};

    fn key(user: &str) -> ConnectionKey {
        ConnectionKey::new("google", user, "default")
    }

    #[tokio::test]
    async fn counts_by_kind_state_and_key_and_tells_what_does_not_open() {
        let (first, old, lost) = (SealingKey::generate(), SealingKey::generate(), SealingKey::generate());
        let store = MemoryStore::new();
        let records = |keys: &[SealingKey]| Records::new(store.clone(), Sealer::new(keys));
        let both = records(&[first.clone(), old.clone()]);
        both.put_connection(&full(key("a"), "CANARY"), Expect::Absent).await.expect("written");
        records(std::slice::from_ref(&old)).put_connection(&full(key("b"), "CANARY"), Expect::Absent).await.expect("written");
        both.begin_intent(&Intent { key: key("a"), begun_at: UnixMillis(1), version: 1 }).await.expect("written");
        let survey = both.survey().await.expect("read");
        assert!(survey.is_whole());
        records(std::slice::from_ref(&lost)).put_connection(&full(key("c\u{202e}"), "CANARY"), Expect::Absent).await.expect("written");
        let newer = both.sealer.seal(Kind::Connection, &key("d").to_bytes(), b"\x09CANARY").expect("sealed");
        store.write(vec![put(Kind::Connection, &key("d").to_bytes(), Expect::Absent, &newer)]).await.expect("written");
        store.write(vec![put(Kind::Session, b"handle", Expect::Absent, b"\0CANARY")]).await.expect("written");
        let told = both.survey().await.expect("read").to_json();
        assert_eq!(told["records"], json!({"connections": 4, "sessions": 1, "intents": 1, "outbox": 0}));
        assert_eq!(told["states"]["reconnect_required"], 2);
        assert_eq!(told["rekey_needed"]["connections"], 1);
        assert_eq!((&told["whole"], &told["faults_total"]), (&json!(false), &json!(3)));
        assert_eq!(told["first_key"], first.id().to_string());
        let flaws: Vec<_> = told["faults"].as_array().expect("a list").iter().map(|fault| fault["flaw"].as_str()).collect();
        assert_eq!(flaws, [Some("key_missing"), Some("newer"), Some("broken")]);
        let text = told.to_string();
        assert!(text.contains(&lost.id().to_string()) && text.contains("newer attache"), "{text}");
        assert!(!text.contains("CANARY") && !text.contains('\u{202e}') && !text.contains("handle"), "{text}");
    }
}
