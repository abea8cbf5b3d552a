//! The device grant (RFC 8628): a code for the device, a code for the user, and a page to type it in.

use crate::base::clock::UnixMillis;
use crate::base::ids::{random_bytes, random_token};
use crate::sandbox::authorize::chosen_user;
use crate::sandbox::core::Core;
use crate::sandbox::form::Form;
use crate::sandbox::pages;
use crate::sandbox::refused::Refused;
use crate::sandbox::respond::{self, Answer, json, method_not_allowed, no_store};
use crate::sandbox::token::{asked_scopes, authenticate};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

const DEVICE_CODE_LIFE: Duration = Duration::from_secs(600);
const DEVICES_MAX: usize = 1_024;
/// RFC 8628 §6.1: consonants alone, so that no code is a word and none is misread. It has 20 letters.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

enum Decision {
    Open,
    Allowed(String),
    Denied,
}

struct Device {
    user_code: String,
    client_id: String,
    scopes: Vec<String>,
    since: UnixMillis,
    interval: Duration,
    polled_at: Option<UnixMillis>,
    decision: Decision,
}

/// The devices that wait, by device code.
#[derive(Default)]
pub(super) struct Devices(HashMap<String, Device>);

impl Devices {
    fn add(&mut self, client_id: &str, scopes: Vec<String>, interval: Duration, now: UnixMillis) -> Option<(String, String)> {
        // An expired one is kept for a while, so that the device hears `expired_token`.
        self.0.retain(|_, device| now.since(device.since) < DEVICE_CODE_LIFE * 2);
        if self.0.len() >= DEVICES_MAX {
            return None;
        }
        let letter = |byte: u8| char::from(LETTERS[usize::from(byte) % LETTERS.len()]);
        let [a, b, c, d, e, f, g, h] = random_bytes::<8>().map(letter);
        let user_code = format!("{a}{b}{c}{d}-{e}{f}{g}{h}");
        let device_code = format!("sdc_{}", random_token());
        let device = Device {
            user_code: user_code.clone(),
            client_id: client_id.to_owned(),
            scopes,
            since: now,
            interval,
            polled_at: None,
            decision: Decision::Open,
        };
        self.0.insert(device_code.clone(), device);
        Some((device_code, user_code))
    }

    /// What the device hears (RFC 8628 §3.5); the user and scopes once, when the user has allowed it.
    pub(super) fn poll(&mut self, client_id: &str, code: &str, now: UnixMillis) -> Result<(String, Vec<String>), Refused> {
        let device = self.0.get_mut(code).filter(|device| device.client_id == client_id);
        let device = device.ok_or(Refused::InvalidGrant("the device code is unknown"))?;
        if now.since(device.since) >= DEVICE_CODE_LIFE {
            return Err(Refused::ExpiredToken);
        }
        let early = device.polled_at.is_some_and(|at| now.since(at) < device.interval);
        device.polled_at = Some(now);
        match &device.decision {
            Decision::Open if early => {
                device.interval += Duration::from_secs(5);
                return Err(Refused::SlowDown);
            }
            Decision::Open => return Err(Refused::AuthorizationPending),
            Decision::Denied => return Err(Refused::AccessDenied),
            Decision::Allowed(_) => {}
        }
        match self.0.remove(code) {
            Some(Device { decision: Decision::Allowed(user), scopes, .. }) => Ok((user, scopes)),
            _ => Err(Refused::InvalidGrant("the device code is unknown")),
        }
    }

    /// Whether an open device had this user code. Case, spaces and dashes do not matter (RFC 8628 §6.1).
    fn decide(&mut self, user_code: &str, decision: Decision, now: UnixMillis) -> bool {
        let typed = plain(user_code);
        let open = |device: &&mut Device| {
            matches!(device.decision, Decision::Open) && now.since(device.since) < DEVICE_CODE_LIFE && plain(&device.user_code) == typed
        };
        match self.0.values_mut().find(open) {
            Some(device) => {
                device.decision = decision;
                true
            }
            None => false,
        }
    }
}

fn plain(user_code: &str) -> String {
    user_code.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect()
}

/// `POST /device_authorization` (RFC 8628 §3.1).
pub(super) async fn begin(core: &Core, request: Request<Incoming>) -> Answer {
    match begin_or_refuse(core, request).await {
        Ok(answer) => answer,
        Err(why) => respond::refused(why),
    }
}

async fn begin_or_refuse(core: &Core, request: Request<Incoming>) -> Result<Answer, Refused> {
    if request.method() != Method::POST {
        return Err(Refused::NotPost);
    }
    let (parts, body) = request.into_parts();
    let form = Form::read(&parts.headers, body).await?;
    let settings = core.settings();
    let client = authenticate(&settings, &parts.headers, &form)?;
    let scopes = asked_scopes(&settings, form.get("scope"))?;
    let added = core.devices().add(&client.id, scopes, settings.device_interval, core.now());
    let (device_code, user_code) = added.ok_or(Refused::InvalidRequest("too many devices wait"))?;
    let page = format!("{}/device", core.issuer);
    let told = json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "expires_in": DEVICE_CODE_LIFE.as_secs(),
        "interval": settings.device_interval.as_secs(),
    });
    Ok(no_store(json(StatusCode::OK, &told)))
}

/// `/device`: where the user types the code.
pub(super) async fn page(core: &Core, request: Request<Incoming>) -> Answer {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let form = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
            let code = form.as_ref().ok().and_then(|form| form.get("user_code")).unwrap_or_default();
            pages::device(&core.settings(), code)
        }
        Method::POST => {
            let (parts, body) = request.into_parts();
            let form = match Form::read(&parts.headers, body).await {
                Ok(form) => form,
                Err(why) => return pages::problem(StatusCode::BAD_REQUEST, &why.to_string()),
            };
            let decision = match (form.get("decision"), chosen_user(&form)) {
                (Some("allow"), Some(user)) => Decision::Allowed(user.to_owned()),
                (Some("allow"), None) => return pages::problem(StatusCode::BAD_REQUEST, "No user was chosen."),
                _ => Decision::Denied,
            };
            match core.devices().decide(form.get("user_code").unwrap_or_default(), decision, core.now()) {
                true => pages::told("Done", "The device hears of it in a moment. You can close this page."),
                false => pages::problem(StatusCode::BAD_REQUEST, "This code is unknown, used or expired."),
            }
        }
        _ => method_not_allowed("GET, HEAD, POST"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_waits_is_slowed_down_and_gets_its_answer_once() {
        let at = |seconds: i64| UnixMillis(seconds * 1000);
        let mut devices = Devices::default();
        let (code, user_code) = devices.add("app", vec!["photos.read".into()], Duration::from_secs(1), at(0)).expect("room");
        assert_eq!(devices.poll("other", &code, at(0)).err().map(Refused::code), Some("invalid_grant"));
        assert_eq!(devices.poll("app", &code, at(1)).err(), Some(Refused::AuthorizationPending));
        assert_eq!(devices.poll("app", &code, at(1)).err(), Some(Refused::SlowDown));
        assert!(!devices.decide("XXXX-XXXX-", Decision::Denied, at(2)));
        assert!(devices.decide(&user_code.to_lowercase().replace('-', " "), Decision::Allowed("megan".into()), at(2)));
        assert!(!devices.decide(&user_code, Decision::Denied, at(2)), "decided once");
        assert_eq!(devices.poll("app", &code, at(9)).ok(), Some(("megan".into(), vec!["photos.read".into()])));
        assert_eq!(devices.poll("app", &code, at(9)).err().map(Refused::code), Some("invalid_grant"));
    }

    #[test]
    fn a_denial_and_an_end_are_told() {
        let mut devices = Devices::default();
        let (denied, user_code) = devices.add("app", Vec::new(), Duration::ZERO, UnixMillis(0)).expect("room");
        assert!(devices.decide(&user_code, Decision::Denied, UnixMillis(0)));
        assert_eq!(devices.poll("app", &denied, UnixMillis(0)).err(), Some(Refused::AccessDenied));
        let (late, _) = devices.add("app", Vec::new(), Duration::ZERO, UnixMillis(0)).expect("room");
        assert_eq!(devices.poll("app", &late, UnixMillis(600_000)).err(), Some(Refused::ExpiredToken));
    }
}
