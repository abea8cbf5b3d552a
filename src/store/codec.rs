//! The stored form of each typed record, before sealing: a version byte, then JSON.
//!
//! A field may be added with `#[serde(default)]` under the same version as long as an older attache may safely drop it when it writes the
//! record again; anything else is a new version. The record's own key is not repeated inside: it is the key it is stored under, and the
//! seal binds the two. Plaintext buffers are zeroized, and sized beforehand so that growing leaves no copy behind.

use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use crate::store::{Connection, Intent, Kind, State, StoreError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use zeroize::Zeroizing;

/// What is written unless a record needs more.
const VERSION: u8 = 1;
/// A connection with key material: an older attache must not write it again without that.
const VERSION_KEYED: u8 = 2;

#[derive(Serialize, Deserialize)]
struct ConnectionV1<'a> {
    id: Cow<'a, str>,
    state: StateV1,
    access_token: Cow<'a, str>,
    refresh_token: Option<Cow<'a, str>>,
    token_type: Cow<'a, str>,
    obtained_at_ms: i64,
    expires_at_ms: Option<i64>,
    scopes: Cow<'a, [String]>,
    missing_scopes: Cow<'a, [String]>,
    created_at_ms: i64,
    updated_at_ms: i64,
    last_used_at_ms: Option<i64>,
    metadata: Cow<'a, BTreeMap<String, serde_json::Value>>,
    last_error: Option<Cow<'a, str>>,
    refresh_failures: u32,
    refresh_not_before_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_material: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateV1 {
    Pending,
    Active,
    Expired,
    ReconnectRequired,
}

#[derive(Serialize, Deserialize)]
struct IntentV1 {
    begun_at_ms: i64,
    version: u64,
}

pub(crate) fn encode_connection(connection: &Connection) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let wire = ConnectionV1 {
        id: Cow::Borrowed(&connection.id),
        state: StateV1::from(connection.state),
        access_token: Cow::Borrowed(connection.access_token.expose()),
        refresh_token: connection.refresh_token.as_ref().map(|token| Cow::Borrowed(token.expose())),
        token_type: Cow::Borrowed(&connection.token_type),
        obtained_at_ms: connection.obtained_at.0,
        expires_at_ms: connection.expires_at.map(|at| at.0),
        scopes: Cow::Borrowed(&connection.scopes),
        missing_scopes: Cow::Borrowed(&connection.missing_scopes),
        created_at_ms: connection.created_at.0,
        updated_at_ms: connection.updated_at.0,
        last_used_at_ms: connection.last_used_at.map(|at| at.0),
        metadata: Cow::Borrowed(&connection.metadata),
        last_error: connection.last_error.as_deref().map(Cow::Borrowed),
        refresh_failures: connection.refresh_failures,
        refresh_not_before_ms: connection.refresh_not_before.map(|at| at.0),
        key_material: connection.key_material.as_ref().map(|key| Cow::Borrowed(key.expose())),
    };
    encode(Kind::Connection, if wire.key_material.is_some() { VERSION_KEYED } else { VERSION }, &wire)
}

pub(crate) fn decode_connection(key: ConnectionKey, bytes: &[u8]) -> Result<Connection, StoreError> {
    let wire: ConnectionV1<'_> = decode(Kind::Connection, bytes)?;
    Ok(Connection {
        id: wire.id.into(),
        key,
        state: wire.state.into(),
        access_token: Secret::new(wire.access_token),
        refresh_token: wire.refresh_token.map(Secret::new),
        token_type: wire.token_type.into(),
        obtained_at: UnixMillis(wire.obtained_at_ms),
        expires_at: wire.expires_at_ms.map(UnixMillis),
        scopes: wire.scopes.into_owned(),
        missing_scopes: wire.missing_scopes.into_owned(),
        created_at: UnixMillis(wire.created_at_ms),
        updated_at: UnixMillis(wire.updated_at_ms),
        last_used_at: wire.last_used_at_ms.map(UnixMillis),
        metadata: wire.metadata.into_owned(),
        last_error: wire.last_error.map(Cow::into_owned),
        refresh_failures: wire.refresh_failures,
        refresh_not_before: wire.refresh_not_before_ms.map(UnixMillis),
        key_material: wire.key_material.map(Secret::new),
    })
}

pub(crate) fn encode_intent(intent: &Intent) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    encode(Kind::Intent, VERSION, &IntentV1 { begun_at_ms: intent.begun_at.0, version: intent.version })
}

pub(crate) fn decode_intent(key: ConnectionKey, bytes: &[u8]) -> Result<Intent, StoreError> {
    let wire: IntentV1 = decode(Kind::Intent, bytes)?;
    Ok(Intent { key, begun_at: UnixMillis(wire.begun_at_ms), version: wire.version })
}

/// Whether the opened bytes of a connection or intent are of a version that only a newer attache knows.
pub(super) fn is_newer(plain: &[u8]) -> bool {
    plain.first().is_some_and(|version| *version > VERSION_KEYED)
}

impl From<State> for StateV1 {
    fn from(state: State) -> Self {
        match state {
            State::Pending => StateV1::Pending,
            State::Active => StateV1::Active,
            State::Expired => StateV1::Expired,
            State::ReconnectRequired => StateV1::ReconnectRequired,
        }
    }
}

impl From<StateV1> for State {
    fn from(state: StateV1) -> Self {
        match state {
            StateV1::Pending => State::Pending,
            StateV1::Active => State::Active,
            StateV1::Expired => State::Expired,
            StateV1::ReconnectRequired => State::ReconnectRequired,
        }
    }
}

fn encode<T: Serialize>(kind: Kind, version: u8, wire: &T) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    // JSON of these types cannot fail but for a map key that is no text, and the types hold none.
    let failed = |_| StoreError::Unavailable(format!("a record of {} has no stored form", kind.name()));
    let mut length = Length(1);
    serde_json::to_writer(&mut length, wire).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    bytes.push(version);
    serde_json::to_writer(&mut *bytes, wire).map_err(failed)?;
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(kind: Kind, bytes: &'a [u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        // serde_json's own message may quote the value at fault, which may be a token: only the place is told.
        Some((&(VERSION | VERSION_KEYED), json)) => serde_json::from_slice(json)
            .map_err(|error| StoreError::Damaged(format!("a record of {} does not read (at its byte {})", kind.name(), error.column()))),
        Some((version, _)) if *version > VERSION_KEYED => Err(StoreError::Damaged(format!(
            "a record of {} was written by a newer attache (record version {version}; this one reads up to {VERSION_KEYED}): run that version",
            kind.name()
        ))),
        _ => Err(StoreError::Damaged(format!("a record of {} is empty or of no known version", kind.name()))),
    }
}

/// Counts what is written, and keeps nothing.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A connection with something in each field.
    pub(crate) fn full(key: ConnectionKey, access_token: &str) -> Connection {
        Connection {
            id: "con_1".into(),
            key,
            state: State::ReconnectRequired,
            access_token: access_token.into(),
            refresh_token: Some("refresh \"quoted\" \u{1f511}".into()),
            token_type: "Bearer".into(),
            obtained_at: UnixMillis(1),
            expires_at: Some(UnixMillis(2)),
            scopes: vec!["a".into(), "b".into()],
            missing_scopes: vec!["c".into()],
            created_at: UnixMillis(3),
            updated_at: UnixMillis(4),
            last_used_at: Some(UnixMillis(5)),
            metadata: BTreeMap::from([("subdomain".to_owned(), serde_json::json!({"deep": [1, null, "x"]}))]),
            last_error: Some("the provider answered invalid_grant".into()),
            refresh_failures: 6,
            refresh_not_before: Some(UnixMillis(-7)),
            key_material: None,
        }
    }

    fn key() -> ConnectionKey {
        ConnectionKey::new("google", "megan@personalemail.com", "default")
    }

    #[test]
    fn records_round_trip() {
        let mut connection = full(key(), "access");
        for state in [State::Pending, State::Active, State::Expired, State::ReconnectRequired] {
            connection.state = state;
            let bytes = encode_connection(&connection).expect("encoded");
            assert_eq!(bytes.capacity(), bytes.len(), "sized beforehand");
            assert_eq!(decode_connection(key(), &bytes).expect("decoded"), connection);
        }
        (connection.refresh_token, connection.expires_at, connection.last_used_at) = (None, None, None);
        (connection.last_error, connection.refresh_not_before) = (None, None);
        let bytes = encode_connection(&connection).expect("encoded");
        assert_eq!(decode_connection(key(), &bytes).expect("decoded"), connection);
        connection.key_material = Some("token secret".into());
        let keyed = encode_connection(&connection).expect("encoded");
        assert_eq!((bytes[0], keyed[0]), (VERSION, VERSION_KEYED), "an older attache would drop the key");
        assert_eq!(decode_connection(key(), &keyed).expect("decoded"), connection);
        let intent = Intent { key: key(), begun_at: UnixMillis(9), version: u64::MAX };
        assert_eq!(decode_intent(key(), &encode_intent(&intent).expect("encoded")).expect("decoded"), intent);
    }

    #[test]
    fn a_state_is_stored_by_its_contract_name() {
        for state in [State::Pending, State::Active, State::Expired, State::ReconnectRequired] {
            assert_eq!(serde_json::to_value(StateV1::from(state)).expect("json"), state.name());
        }
    }

    #[test]
    fn refuses_what_it_does_not_know_without_quoting_it() {
        let check = |bytes: &[u8], expected: &str| {
            let error = decode_intent(key(), bytes).expect_err("refused");
            assert!(matches!(error, StoreError::Damaged(_)));
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("CANARY"), "{text}");
        };
        check(b"", "empty");
        check(b"\x00{}", "no known version");
        check(b"\x03whatever", "written by a newer attache");
        check(b"\x01{\"begun_at_ms\":\"CANARY\",\"version\":1}", "does not read");
        check(b"\x01{\"begun_at_ms\":1", "does not read");
    }
}
