//! The stored form of sessions, before sealing: a version byte, then JSON. Fields may be added with `#[serde(default)]`; sessions live for
//! minutes, so that a form that is no longer known is simply no session.

use super::device::{DeviceSession, DeviceState};
use super::session::{Answer, Attempt, Completes, Digest, Granted, Outcome, Parked, Phase, Session};
use crate::base::clock::UnixMillis;
use crate::base::ids::ConnectionKey;
use crate::base::secret::Secret;
use crate::oauth::Pair;
use crate::store::codec::{decode_connection, encode_connection};
use crate::store::{Connection, StoreError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct SessionV1 {
    handle: String,
    id: [u8; 32],
    end_user: String,
    account: String,
    providers: Vec<String>,
    return_url: Option<String>,
    scopes: Option<Vec<String>>,
    params: Vec<(String, String)>,
    metadata: BTreeMap<String, Value>,
    app_completes: bool,
    created_at_ms: i64,
    expires_at_ms: i64,
    phase: PhaseV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseV1 {
    Open,
    Begun(Box<AttemptV1>),
    Exchanging {
        provider: String,
    },
    Granted {
        completion: [u8; 32],
        key: [String; 3],
        connection: Text,
        #[serde(default)]
        also: Vec<([String; 3], Text)>,
    },
    Ended {
        provider: Option<String>,
        outcome: OutcomeV1,
    },
}

#[derive(Serialize, Deserialize)]
struct AttemptV1 {
    provider: String,
    state: [u8; 32],
    cookie: [u8; 32],
    verifier: Option<Text>,
    nonce: Option<Text>,
    redirect_uri: String,
    scopes: Vec<String>,
    #[serde(default)]
    values: BTreeMap<String, String>,
    #[serde(default)]
    key: Option<Text>,
    /// Token and secret.
    #[serde(default)]
    temporary: Option<(Text, Text)>,
    parked: Option<ParkedV1>,
}

#[derive(Serialize, Deserialize)]
struct ParkedV1 {
    id: [u8; 32],
    code: Option<Text>,
    error: Option<String>,
    iss: Option<String>,
    #[serde(default)]
    denied: bool,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    callback: Vec<(String, String)>,
    #[serde(default)]
    learnt: BTreeMap<String, Value>,
    #[serde(default)]
    unfit: Option<String>,
    until_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeV1 {
    Connected,
    Denied,
    Failed,
    Discarded,
}

#[derive(Serialize, Deserialize)]
struct DeviceV1 {
    id: [u8; 32],
    handle: String,
    key: [String; 3],
    scopes: Vec<String>,
    metadata: BTreeMap<String, Value>,
    device_code: Option<Text>,
    #[serde(default)]
    user_code: Option<String>,
    #[serde(default)]
    proof_key: Option<Text>,
    interval_ms: u64,
    created_at_ms: i64,
    expires_at_ms: i64,
    state: DeviceStateV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeviceStateV1 {
    Pending,
    Connected,
    Denied,
    Expired,
    Failed,
}

/// A secret's text while it is on its way into or out of the sealed form; wiped when dropped.
#[derive(Serialize, Deserialize)]
struct Text(Zeroizing<String>);

impl From<&Secret> for Text {
    fn from(secret: &Secret) -> Self {
        Text(Zeroizing::new(secret.expose().to_owned()))
    }
}

impl From<Text> for Secret {
    fn from(text: Text) -> Self {
        Secret::new(text.0.as_str())
    }
}

pub(super) fn encode(session: &Session) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let wire = SessionV1 {
        handle: session.handle.to_string(),
        id: session.id.0,
        end_user: session.end_user.to_string(),
        account: session.account.to_string(),
        providers: session.providers.iter().map(ToString::to_string).collect(),
        return_url: session.return_url.as_deref().map(str::to_owned),
        scopes: session.scopes.clone(),
        params: session.params.clone(),
        metadata: session.metadata.clone(),
        app_completes: session.completes == Completes::App,
        created_at_ms: session.created_at.0,
        expires_at_ms: session.expires_at.0,
        phase: phase_to_wire(&session.phase)?,
    };
    write(&wire)
}

pub(super) fn decode(bytes: &[u8]) -> Option<Session> {
    let wire: SessionV1 = read(bytes)?;
    Some(Session {
        handle: wire.handle.into(),
        id: Digest(wire.id),
        end_user: wire.end_user.into(),
        account: wire.account.into(),
        providers: wire.providers.into_iter().map(Into::into).collect(),
        return_url: wire.return_url.map(Into::into),
        scopes: wire.scopes,
        params: wire.params,
        metadata: wire.metadata,
        completes: if wire.app_completes { Completes::App } else { Completes::Browser },
        created_at: UnixMillis(wire.created_at_ms),
        expires_at: UnixMillis(wire.expires_at_ms),
        phase: phase_from_wire(wire.phase)?,
    })
}

fn phase_to_wire(phase: &Phase) -> Result<PhaseV1, StoreError> {
    Ok(match phase {
        Phase::Open => PhaseV1::Open,
        Phase::Begun(attempt) => PhaseV1::Begun(Box::new(AttemptV1 {
            provider: attempt.provider.to_string(),
            state: attempt.state.0,
            cookie: attempt.cookie.0,
            verifier: attempt.verifier.as_ref().map(Text::from),
            nonce: attempt.nonce.as_ref().map(Text::from),
            redirect_uri: attempt.redirect_uri.to_string(),
            scopes: attempt.scopes.clone(),
            values: attempt.values.clone(),
            key: attempt.key.as_ref().map(Text::from),
            temporary: attempt.temporary.as_ref().map(|pair| (Text::from(&pair.token), Text::from(&pair.secret))),
            parked: attempt.parked.as_ref().map(parked_to_wire),
        })),
        Phase::Exchanging { provider } => PhaseV1::Exchanging { provider: provider.to_string() },
        Phase::Granted(granted) => {
            let (key, connection) = connection_to_wire(&granted.connection)?;
            let also = granted.also.iter().map(connection_to_wire).collect::<Result<_, _>>()?;
            PhaseV1::Granted { completion: granted.completion.0, key, connection, also }
        }
        Phase::Ended { provider, outcome } => PhaseV1::Ended {
            provider: provider.as_deref().map(str::to_owned),
            outcome: match outcome {
                Outcome::Connected => OutcomeV1::Connected,
                Outcome::Denied => OutcomeV1::Denied,
                Outcome::Failed => OutcomeV1::Failed,
                Outcome::Discarded => OutcomeV1::Discarded,
            },
        },
    })
}

fn parked_to_wire(parked: &Parked) -> ParkedV1 {
    let Answer { code, error, denied, iss, scope, callback, learnt, unfit } = parked.answer.clone();
    ParkedV1 {
        id: parked.id.0,
        code: code.as_ref().map(Text::from),
        error,
        iss,
        denied,
        scope,
        callback,
        learnt,
        unfit,
        until_ms: parked.until.0,
    }
}

fn parked_from_wire(wire: ParkedV1) -> Parked {
    let ParkedV1 { id, code, error, iss, denied, scope, callback, learnt, unfit, until_ms } = wire;
    let answer = Answer { code: code.map(Secret::from), error, denied, iss, scope, callback, learnt, unfit };
    Parked { id: Digest(id), answer, until: UnixMillis(until_ms) }
}

fn connection_to_wire(connection: &Connection) -> Result<([String; 3], Text), StoreError> {
    let key = &connection.key;
    let key = [&key.provider, &key.end_user, &key.account].map(ToString::to_string);
    Ok((key, Text(Zeroizing::new(STANDARD.encode(&*encode_connection(connection)?)))))
}

fn connection_from_wire([provider, end_user, account]: &[String; 3], text: &Text) -> Option<Connection> {
    let plain = Zeroizing::new(STANDARD.decode(text.0.as_str()).ok()?);
    decode_connection(ConnectionKey::new(provider, end_user, account), &plain).ok()
}

fn phase_from_wire(phase: PhaseV1) -> Option<Phase> {
    Some(match phase {
        PhaseV1::Open => Phase::Open,
        PhaseV1::Begun(attempt) => Phase::Begun(Box::new(Attempt {
            provider: attempt.provider.into(),
            state: Digest(attempt.state),
            cookie: Digest(attempt.cookie),
            verifier: attempt.verifier.map(Secret::from),
            nonce: attempt.nonce.map(Secret::from),
            redirect_uri: attempt.redirect_uri.into(),
            scopes: attempt.scopes,
            values: attempt.values,
            key: attempt.key.map(Secret::from),
            temporary: attempt.temporary.map(|(token, secret)| Pair { token: token.into(), secret: secret.into() }),
            parked: attempt.parked.map(parked_from_wire),
        })),
        PhaseV1::Exchanging { provider } => Phase::Exchanging { provider: provider.into() },
        PhaseV1::Granted { completion, key, connection, also } => {
            let connection = connection_from_wire(&key, &connection)?;
            let also = also.iter().map(|(key, text)| connection_from_wire(key, text)).collect::<Option<_>>()?;
            Phase::Granted(Box::new(Granted { completion: Digest(completion), connection, also }))
        }
        PhaseV1::Ended { provider, outcome } => Phase::Ended {
            provider: provider.map(Into::into),
            outcome: match outcome {
                OutcomeV1::Connected => Outcome::Connected,
                OutcomeV1::Denied => Outcome::Denied,
                OutcomeV1::Failed => Outcome::Failed,
                OutcomeV1::Discarded => Outcome::Discarded,
            },
        },
    })
}

pub(super) fn encode_device(device: &DeviceSession) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    write(&DeviceV1 {
        id: device.id.0,
        handle: device.handle.to_string(),
        key: [&device.key.provider, &device.key.end_user, &device.key.account].map(ToString::to_string),
        scopes: device.scopes.clone(),
        metadata: device.metadata.clone(),
        device_code: device.device_code.as_ref().map(Text::from),
        user_code: device.user_code.clone(),
        proof_key: device.proof_key.as_ref().map(Text::from),
        interval_ms: u64::try_from(device.interval.as_millis()).unwrap_or(u64::MAX),
        created_at_ms: device.created_at.0,
        expires_at_ms: device.expires_at.0,
        state: match device.state {
            DeviceState::Pending => DeviceStateV1::Pending,
            DeviceState::Connected => DeviceStateV1::Connected,
            DeviceState::Denied => DeviceStateV1::Denied,
            DeviceState::Expired => DeviceStateV1::Expired,
            DeviceState::Failed => DeviceStateV1::Failed,
        },
    })
}

pub(super) fn decode_device(bytes: &[u8]) -> Option<DeviceSession> {
    let wire: DeviceV1 = read(bytes)?;
    let [provider, end_user, account] = wire.key;
    Some(DeviceSession {
        id: Digest(wire.id),
        handle: wire.handle.into(),
        key: ConnectionKey::new(&provider, &end_user, &account),
        scopes: wire.scopes,
        metadata: wire.metadata,
        device_code: wire.device_code.map(Secret::from),
        user_code: wire.user_code,
        proof_key: wire.proof_key.map(Secret::from),
        interval: Duration::from_millis(wire.interval_ms),
        created_at: UnixMillis(wire.created_at_ms),
        expires_at: UnixMillis(wire.expires_at_ms),
        state: match wire.state {
            DeviceStateV1::Pending => DeviceState::Pending,
            DeviceStateV1::Connected => DeviceState::Connected,
            DeviceStateV1::Denied => DeviceState::Denied,
            DeviceStateV1::Expired => DeviceState::Expired,
            DeviceStateV1::Failed => DeviceState::Failed,
        },
    })
}

fn write<T: Serialize>(wire: &T) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let failed = |_| StoreError::Unavailable("a session has no stored form".to_owned());
    // Large enough for nearly all at once: growing leaves a copy behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(48 * 1024));
    bytes.push(VERSION);
    serde_json::to_writer(&mut *bytes, wire).map_err(failed)?;
    Ok(bytes)
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::wire::parse_import;

    fn session(phase: Phase) -> Session {
        Session {
            handle: "h".repeat(22).into(),
            id: Digest::of("id"),
            end_user: "megan@personalemail.com".into(),
            account: "work".into(),
            providers: vec!["google".into()],
            return_url: Some("https://app.example.com/".into()),
            scopes: Some(vec!["a".into()]),
            params: vec![("hd".into(), "example.com".into())],
            metadata: BTreeMap::from([("order".into(), 7.into())]),
            completes: Completes::App,
            created_at: UnixMillis(1),
            expires_at: UnixMillis(2),
            phase,
        }
    }

    #[test]
    fn sessions_round_trip_in_every_phase() {
        let line = r#"{"provider":"google","end_user":"megan@personalemail.com","access_token":"A","refresh_token":"R"}"#;
        let connection = parse_import(line, UnixMillis(5)).expect("a line");
        let answer = Answer {
            code: Some("code".into()),
            denied: true,
            iss: Some("https://i".into()),
            scope: Some("a".into()),
            callback: vec![("device_id".into(), "D".into())],
            learnt: BTreeMap::from([("realm".into(), "7".into())]),
            unfit: Some("host".into()),
            ..Answer::default()
        };
        let parked = Parked { id: Digest::of("p"), answer, until: UnixMillis(9) };
        let attempt = Attempt {
            provider: "google".into(),
            state: Digest::of("s"),
            cookie: Digest::of("c"),
            verifier: Some("v".into()),
            nonce: Some("n".into()),
            redirect_uri: "http://localhost:7071/oauth/callback/google".into(),
            scopes: vec!["a".into()],
            values: BTreeMap::from([("sub".into(), "acme".into())]),
            key: Some("k".into()),
            temporary: Some(Pair { token: "t".into(), secret: "s".into() }),
            parked: Some(parked),
        };
        for phase in [
            Phase::Open,
            Phase::Begun(Box::new(attempt)),
            Phase::Exchanging { provider: "google".into() },
            Phase::Granted(Box::new(Granted { completion: Digest::of("x"), also: vec![connection.clone()], connection })),
            Phase::Ended { provider: None, outcome: Outcome::Discarded },
        ] {
            let session = session(phase);
            let read = decode(&encode(&session).expect("encoded")).expect("decoded");
            assert_eq!(format!("{read:?}"), format!("{session:?}"));
            assert!(!format!("{session:?}").contains("\"code\""), "secrets are not shown");
        }
    }

    #[test]
    fn what_is_not_known_is_no_session() {
        for bytes in [&b""[..], b"\x02{}", b"\x01{}", b"\x01nonsense"] {
            assert!(decode(bytes).is_none());
            assert!(decode_device(bytes).is_none());
        }
    }
}
