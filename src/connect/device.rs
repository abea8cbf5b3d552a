//! The device flow (RFC 8628) as the API and the command line have it: a code for the end user, and a task that polls until it is used.

use super::answer::names_in;
use super::book::{DEVICES, key};
use super::create::{check_new_metadata, check_provider, check_scopes, check_who};
use super::grant::{Gained, SAVE_PAUSE, record};
use super::session::{Digest, handle_in, new_text};
use super::{Connect, ConnectError, codec, inputs};
use crate::base::clock::UnixMillis;
use crate::base::ids::{ConnectionKey, random_id};
use crate::base::secret::Secret;
use crate::oauth::{DevicePoll, TokenError, Values, Verdict, new_key};
use crate::provider::Registration;
use crate::store::{Expect, SessionWrite, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A device code that lives longer than this is polled no longer than this.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// RFC 8628 §3.5: `slow_down` adds so much to all later pauses.
const SLOWER_BY: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_secs(120);
/// How long the outcome can be asked for after the code's end.
const TOLD_FOR: Duration = Duration::from_secs(600);
const PAGE: usize = 256;

/// What a device session is asked to be.
#[derive(Debug, Clone, Default)]
pub struct NewDevice {
    pub provider: String,
    pub end_user: String,
    pub account: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub metadata: BTreeMap<String, Value>,
}

/// What the end user is to be shown (RFC 8628 §3.3): the code as text, not only as a link (§5.4).
#[derive(Debug, Clone)]
pub struct DeviceCreated {
    pub id: String,
    pub user_code: String,
    pub verification_uri: String,
    pub verification_uri_complete: Option<String>,
    pub expires_at: UnixMillis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    Pending,
    Connected,
    Denied,
    Expired,
    Failed,
}

impl DeviceState {
    pub fn name(self) -> &'static str {
        match self {
            DeviceState::Pending => "pending",
            DeviceState::Connected => "connected",
            DeviceState::Denied => "denied",
            DeviceState::Expired => "expired",
            DeviceState::Failed => "failed",
        }
    }
}

/// A device session as it is stored.
#[derive(Debug, Clone)]
pub struct DeviceSession {
    pub id: Digest,
    pub handle: Box<str>,
    pub key: ConnectionKey,
    pub scopes: Vec<String>,
    pub metadata: BTreeMap<String, Value>,
    /// Gone once the session has ended.
    pub device_code: Option<Secret>,
    /// What the end user types, where the provider wants it back at each poll.
    pub user_code: Option<String>,
    /// What the tokens will be bound to (RFC 9449).
    pub proof_key: Option<Secret>,
    pub interval: Duration,
    pub created_at: UnixMillis,
    /// The device code's end.
    pub expires_at: UnixMillis,
    pub state: DeviceState,
}

impl DeviceSession {
    pub(super) fn is_over(&self, now: UnixMillis) -> bool {
        now >= self.expires_at.plus(TOLD_FOR)
    }
}

impl Connect {
    /// Asks the provider for a code, keeps it, and begins to poll.
    ///
    /// # Errors
    /// In words for the app's developer, or of the provider or the store.
    pub async fn create_device(self: &Arc<Self>, new: NewDevice) -> Result<DeviceCreated, ConnectError> {
        let snapshot = self.live.snapshot();
        let account = check_who(&new.end_user, new.account.as_deref()).map_err(ConnectError::Invalid)?;
        let registration = match snapshot.providers.get(&*new.provider).filter(|registration| registration.off.is_none()) {
            Some(registration) if registration.device_authorization_url.is_some() || registration.issuer.is_some() => {
                Arc::clone(registration)
            }
            Some(_) => return Err(ConnectError::Invalid(format!("the provider `{}` has no `device_authorization_url`", new.provider))),
            None => {
                check_provider(&snapshot, &new.provider).map_err(ConnectError::Invalid)?;
                return Err(ConnectError::NotFound);
            }
        };
        check_scopes(new.scopes.as_deref()).map_err(ConnectError::Invalid)?;
        check_new_metadata(&new.metadata).map_err(ConnectError::Invalid)?;
        let scopes = new.scopes.unwrap_or_else(|| registration.scopes.iter().map(ToString::to_string).collect());
        let mut metadata = new.metadata;
        let values = inputs::fill(&registration, &metadata, |_| None).map_err(|_| {
            ConnectError::Invalid(format!("`metadata` must hold what `{}` asks for: {}", registration.id, asked_by(&registration)))
        })?;
        metadata.extend(values.into_iter().map(|(name, value)| (name, value.into())));
        let code = self
            .client
            .device_authorize(&registration, &scopes, Values::of(&metadata))
            .await
            .map_err(|error| ConnectError::Provider(error.to_string()))?;
        let (now, handle) = (self.clock.now(), random_id("")[1..].to_owned());
        let id = new_text(&handle);
        let device = DeviceSession {
            id: Digest::of(&id),
            handle: handle.into(),
            key: ConnectionKey::new(&registration.id, &new.end_user, account),
            scopes,
            metadata,
            device_code: Some(code.device_code),
            user_code: names_in(&registration.dialect.calls.poll).any(|name| name == "user_code").then(|| code.user_code.clone()),
            proof_key: new_key(&registration),
            interval: code.interval.min(INTERVAL_MAX),
            created_at: now,
            expires_at: now.plus(code.expires_in.min(LIFE_MAX)),
            state: DeviceState::Pending,
        };
        let version = self.put_device(&device, Expect::Absent).await?;
        let expires_at = device.expires_at;
        self.poll_on(device, version);
        Ok(DeviceCreated {
            id,
            user_code: code.user_code,
            verification_uri: code.verification_uri,
            verification_uri_complete: code.verification_uri_complete,
            expires_at,
        })
    }

    /// What became of a device session.
    ///
    /// # Errors
    /// When it is unknown, or of the store.
    pub async fn device_state(&self, id: &str) -> Result<DeviceSession, ConnectError> {
        let handle = handle_in(id).ok_or(ConnectError::NotFound)?;
        let keyed = self.records.session(&key(DEVICES, handle)).await?.ok_or(ConnectError::NotFound)?;
        codec::decode_device(&keyed.record.0).filter(|device| device.id.fits(id)).ok_or(ConnectError::NotFound)
    }

    /// Goes on with the polls that a restart cut off.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn resume_devices(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.records.sessions(DEVICES, after.as_deref(), PAGE).await?;
            for keyed in page.iter().filter_map(|(_, keyed)| keyed.as_ref()) {
                match codec::decode_device(&keyed.record.0) {
                    Some(device) if device.state == DeviceState::Pending => self.poll_on(device, keyed.version),
                    _ => {}
                }
            }
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    async fn put_device(&self, device: &DeviceSession, expect: Expect) -> Result<u64, StoreError> {
        let plain = codec::encode_device(device)?;
        let key = key(DEVICES, &device.handle);
        self.records.put_session(SessionWrite { key: &key, expect, value: Some(&plain) }).await
    }

    fn poll_on(self: &Arc<Self>, device: DeviceSession, version: u64) {
        let connect = Arc::clone(self);
        self.control.spawn(async move { connect.poll(device, version).await });
    }

    /// Polls at the provider's pace until there is an outcome (RFC 8628 §3.4, §3.5).
    async fn poll(&self, mut device: DeviceSession, version: u64) {
        let mut pause = device.interval;
        loop {
            tokio::time::sleep(pause).await;
            // A poll may bring the grant: it is not cut off at shutdown.
            let _under_way = self.under_way();
            let snapshot = self.live.snapshot();
            let registration = self.registration(&snapshot, &device.key.provider);
            let state = match (&registration, &device.device_code) {
                (Some(_), Some(_)) if self.clock.now() >= device.expires_at => DeviceState::Expired,
                (Some(registration), Some(code)) => match self.poll_once(registration, code, &device).await {
                    Ok(DevicePoll::Pending) => continue,
                    Ok(DevicePoll::SlowDown) => {
                        device.interval = (device.interval + SLOWER_BY).min(INTERVAL_MAX);
                        pause = device.interval;
                        continue;
                    }
                    Ok(DevicePoll::Granted(grant)) => {
                        let known = device.metadata.clone().into_iter().chain(grant.learnt.clone()).collect();
                        let looked_up = self.completed(registration, &grant, &known).await;
                        let is_whole = looked_up.is_ok();
                        let gained = Gained::granted(
                            registration,
                            &device.key,
                            *grant,
                            &device.scopes,
                            self.clock.now(),
                            looked_up.unwrap_or_default(),
                        );
                        if is_whole {
                            self.connect_device(&device, version, registration, &gained).await
                        } else {
                            self.drop_gained(registration, &device.key, &gained).await;
                            DeviceState::Failed
                        }
                    }
                    Ok(DevicePoll::Denied) => DeviceState::Denied,
                    Ok(DevicePoll::Expired) => DeviceState::Expired,
                    Err(error) => match error.verdict {
                        // A poll that found no answer is tried again at twice the pause (RFC 8628 §3.5).
                        Verdict::Transient { .. } => {
                            pause = (pause * 2).min(INTERVAL_MAX);
                            continue;
                        }
                        Verdict::GrantEnded | Verdict::Misconfigured => {
                            tracing::warn!(event = "connect.failed", provider.id = %registration.id, error = %error, "a device flow failed");
                            DeviceState::Failed
                        }
                    },
                },
                _ => DeviceState::Failed,
            };
            if state != DeviceState::Connected {
                (device.state, device.device_code) = (state, None);
                // Moved by somebody else, or not kept: either way there is nothing more to do here.
                let _ = self.put_device(&device, Expect::Version(version)).await;
            }
            return;
        }
    }

    async fn poll_once(&self, registration: &Registration, code: &Secret, device: &DeviceSession) -> Result<DevicePoll, TokenError> {
        self.client.holding(registration, device.proof_key.as_ref())?.device_poll(registration, code, of(device)).await
    }

    /// Writes the connection and the session's end in one batch.
    async fn connect_device(&self, device: &DeviceSession, version: u64, registration: &Registration, gained: &Gained) -> DeviceState {
        let ended = DeviceSession { state: DeviceState::Connected, device_code: None, proof_key: None, ..device.clone() };
        let written = async {
            for attempt in 0..8u32 {
                let known = self.records.connection(&device.key).await?;
                let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
                let mut metadata = device.metadata.clone();
                metadata.extend(gained.learnt.clone());
                let record = record(&device.key, known.map(|known| known.record).as_ref(), gained, &metadata);
                let plain = codec::encode_device(&ended)?;
                let session_key = key(DEVICES, &device.handle);
                let session = SessionWrite { key: &session_key, expect: Expect::Version(version), value: Some(&plain) };
                let further = self.further(gained, &metadata).await?;
                let notices = self.created_letters(Some(&record));
                match self.records.land(&device.key, Some(&record), expect, &further, session, &notices).await {
                    Err(StoreError::Conflict) => {}
                    Ok(()) => return Ok(record),
                    Err(_) if attempt < 5 => tokio::time::sleep(SAVE_PAUSE * 2u32.pow(attempt)).await,
                    Err(error) => return Err(error),
                }
            }
            Err(StoreError::Conflict)
        };
        match written.await {
            Ok(record) => {
                self.keeper.forget(device.key.borrow());
                gained.further_keys().for_each(|key| self.keeper.forget(key.borrow()));
                self.keeper.events().connected(&registration.id);
                tracing::info!(event = "connection.created", provider.id = %registration.id, connection.id = %record.id, "an end user connected by a device code");
                DeviceState::Connected
            }
            Err(error) => {
                tracing::error!(provider.id = %registration.id, error = %error, "a connection of a device flow could not be stored: it is dropped");
                self.drop_gained(registration, &device.key, gained).await;
                DeviceState::Failed
            }
        }
    }
}

fn of(device: &DeviceSession) -> Values<'_> {
    Values { user_code: device.user_code.as_deref(), ..Values::of(&device.metadata) }
}

fn asked_by(registration: &Registration) -> String {
    let inputs = registration.dialect.inputs.iter().filter(|input| input.value.is_none());
    inputs.map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(", ")
}
