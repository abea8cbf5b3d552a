//! The state of the authorization server: grants, their tokens and the codes that lead to them, in memory and by digest.
//!
//! A grant is a family of tokens. Its refresh tokens carry the generation that they belong to; a rotation begins the next one. The tokens of the
//! current generation are good, those of the last one within the leeway, and any older one is a reuse, which ends the family (RFC 9700 §4.14.2).

use crate::base::clock::UnixMillis;
use crate::base::digest::sha256;
use crate::base::ids::random_token;
use crate::base::secret::Secret;
use crate::sandbox::refused::Refused;
use crate::sandbox::settings::Settings;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How long an authorization code is good (RFC 6749 §4.1.2 allows ten minutes at most).
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a spent code is remembered, so that its replay is known as one.
const CODE_MEMORY: Duration = Duration::from_secs(600);
/// How many generations back a refresh token is remembered.
const GENERATIONS_KEPT: u64 = 64;
/// Dead grants are forgotten once there are more grants than this.
const GRANTS_MAX: usize = 20_000;
/// State is swept after so many tokens.
const SWEEP_EVERY: u64 = 2_048;

type Digest = [u8; 32];
pub(super) type Scopes = Arc<[String]>;

/// What a look-up compares: the time it takes tells nothing of the token itself.
pub(super) struct Grant {
    pub(super) user: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) scopes: Scopes,
    pub(super) live: bool,
    pub(super) refreshes: u64,
    pub(super) reuse_detected: bool,
    generation: u64,
    rotated_at: UnixMillis,
}

struct Access {
    /// `None` for a client's own token (RFC 6749 §4.4), which belongs to no grant.
    grant: Option<u64>,
    bearer: Bearer,
    expires_at: UnixMillis,
}

struct Refresh {
    grant: u64,
    generation: u64,
    issued_at: UnixMillis,
}

/// Whom an access token is for and what it opens.
#[derive(Clone)]
pub(super) struct Bearer {
    pub(super) user: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) scopes: Scopes,
}

/// What an approved authorization request asked for.
#[derive(Clone)]
pub(super) struct Approval {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    pub(super) challenge: Option<String>,
}

struct Code {
    approval: Approval,
    user: String,
    issued_at: UnixMillis,
    spent: Option<Option<u64>>,
}

pub(super) struct Issued {
    pub(super) grant: Option<u64>,
    pub(super) access_token: Secret,
    pub(super) refresh_token: Option<Secret>,
    pub(super) expires_at: UnixMillis,
    pub(super) scopes: Scopes,
}

#[derive(Default)]
pub(super) struct Grants {
    grants: BTreeMap<u64, Grant>,
    access: HashMap<Digest, Access>,
    refresh: HashMap<Digest, Refresh>,
    codes: HashMap<Digest, Code>,
    last_grant: u64,
    late_refreshes: u64,
    reuse_detections: u64,
    tokens_issued: u64,
}

impl Grants {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Grant)> {
        self.grants.iter().map(|(id, grant)| (*id, grant))
    }

    pub(super) fn late_refreshes(&self) -> u64 {
        self.late_refreshes
    }

    pub(super) fn reuse_detections(&self) -> u64 {
        self.reuse_detections
    }

    /// A new grant with its first tokens.
    pub(super) fn issue(&mut self, settings: &Settings, client_id: &str, user: &str, scopes: &[String], now: UnixMillis) -> Issued {
        self.last_grant += 1;
        let id = self.last_grant;
        let scopes: Scopes = scopes.into();
        let grant = Grant {
            user: user.into(),
            client_id: client_id.into(),
            scopes: scopes.clone(),
            live: true,
            refreshes: 0,
            reuse_detected: false,
            generation: 0,
            rotated_at: now,
        };
        let bearer = Bearer { user: grant.user.clone(), client_id: grant.client_id.clone(), scopes };
        self.grants.insert(id, grant);
        let refresh_token = self.add_refresh(id, 0, now);
        Issued { refresh_token: Some(refresh_token), ..self.add_access(settings, Some(id), bearer, now) }
    }

    /// A client's token for itself (RFC 6749 §4.4), without a refresh token.
    pub(super) fn issue_for_client(&mut self, settings: &Settings, client_id: &str, scopes: &[String], now: UnixMillis) -> Issued {
        let bearer = Bearer { user: format!("app:{client_id}").into(), client_id: client_id.into(), scopes: scopes.into() };
        self.add_access(settings, None, bearer, now)
    }

    fn add_access(&mut self, settings: &Settings, grant: Option<u64>, bearer: Bearer, now: UnixMillis) -> Issued {
        self.sweep(now);
        let token = format!("sat_{}", random_token());
        let expires_at = now.plus(settings.access_token_life);
        let scopes = bearer.scopes.clone();
        self.access.insert(sha256(&token), Access { grant, bearer, expires_at });
        Issued { grant, access_token: token.into(), refresh_token: None, expires_at, scopes }
    }

    fn add_refresh(&mut self, grant: u64, generation: u64, now: UnixMillis) -> Secret {
        let token = format!("srt_{}", random_token());
        self.refresh.insert(sha256(&token), Refresh { grant, generation, issued_at: now });
        token.into()
    }

    /// Whom a live access token is for.
    pub(super) fn bearer(&self, token: &str, now: UnixMillis) -> Option<(Bearer, UnixMillis)> {
        let access = self.access.get(&sha256(token))?;
        let alive = access.grant.is_none_or(|id| self.grants.get(&id).is_some_and(|grant| grant.live));
        (alive && now < access.expires_at).then(|| (access.bearer.clone(), access.expires_at))
    }

    /// The grant of a refresh token that would still be taken.
    pub(super) fn refreshable(&self, settings: &Settings, token: &str, now: UnixMillis) -> Option<&Grant> {
        let refresh = self.refresh.get(&sha256(token))?;
        let grant = self.grants.get(&refresh.grant).filter(|grant| grant.live)?;
        (!refresh.is_over(settings, now) && refresh.generation == grant.generation).then_some(grant)
    }

    /// Spends a refresh token (RFC 6749 §6).
    pub(super) fn refresh(
        &mut self,
        settings: &Settings,
        client_id: &str,
        token: &str,
        narrowed: Option<&[String]>,
        now: UnixMillis,
    ) -> Result<Issued, Refused> {
        let unknown = Refused::InvalidGrant("the refresh token is unknown");
        let refresh = self.refresh.get(&sha256(token)).ok_or(unknown)?;
        let (id, generation, over) = (refresh.grant, refresh.generation, refresh.is_over(settings, now));
        let grant = self.grants.get_mut(&id).filter(|grant| *grant.client_id == *client_id).ok_or(unknown)?;
        if !grant.live {
            return Err(Refused::InvalidGrant("the grant has ended"));
        }
        if over {
            return Err(Refused::InvalidGrant("the refresh token has expired"));
        }
        let current = generation == grant.generation;
        let last = generation + 1 == grant.generation && now.since(grant.rotated_at) <= settings.reuse_leeway;
        if !current && !last {
            grant.live = false;
            grant.reuse_detected = true;
            self.reuse_detections += 1;
            tracing::warn!(sandbox.grant = id, "a rotated refresh token was used again; its grant has ended");
            return Err(Refused::InvalidGrant("the refresh token was used before; the grant has ended"));
        }
        let scopes: Scopes = match narrowed {
            None => grant.scopes.clone(),
            Some(asked) if asked.iter().all(|scope| grant.scopes.contains(scope)) => asked.into(),
            Some(_) => return Err(Refused::InvalidScope("a refresh cannot widen the scopes")),
        };
        grant.refreshes += 1;
        self.late_refreshes += u64::from(last);
        if current && settings.rotate {
            grant.generation += 1;
            grant.rotated_at = now;
        }
        let next = grant.generation;
        let bearer = Bearer { user: grant.user.clone(), client_id: grant.client_id.clone(), scopes };
        // Within the leeway the last token gets a pair of its own, of the generation that is current by now.
        let refresh_token = (next > generation).then(|| self.add_refresh(id, next, now));
        Ok(Issued { refresh_token, ..self.add_access(settings, Some(id), bearer, now) })
    }

    /// A code for an approved request (RFC 6749 §4.1.2).
    pub(super) fn add_code(&mut self, approval: Approval, user: &str, now: UnixMillis) -> String {
        let code = format!("sac_{}", random_token());
        self.codes.retain(|_, code| now.since(code.issued_at) < CODE_MEMORY);
        self.codes.insert(sha256(&code), Code { approval, user: user.to_owned(), issued_at: now, spent: None });
        code
    }

    /// Spends a code. A replay ends the grant that the code led to (RFC 6749 §4.1.2); a failed attempt spends the code as well.
    pub(super) fn exchange(
        &mut self,
        settings: &Settings,
        client_id: &str,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
        now: UnixMillis,
    ) -> Result<Issued, Refused> {
        let unknown = Refused::InvalidGrant("the code is unknown");
        let found = self.codes.get_mut(&sha256(code)).filter(|code| code.approval.client_id == client_id).ok_or(unknown)?;
        if let Some(led_to) = found.spent {
            if let Some(grant) = led_to.and_then(|id| self.grants.get_mut(&id)) {
                grant.live = false;
            }
            return Err(Refused::InvalidGrant("the code was used before; the grant has ended"));
        }
        found.spent = Some(None);
        if now.since(found.issued_at) >= CODE_LIFE {
            return Err(Refused::InvalidGrant("the code has expired"));
        }
        if found.approval.redirect_uri != redirect_uri {
            return Err(Refused::InvalidGrant("redirect_uri is not that of the authorization request"));
        }
        check_pkce(found.approval.challenge.as_deref(), verifier)?;
        let (user, scopes) = (found.user.clone(), found.approval.scopes.clone());
        let issued = self.issue(settings, client_id, &user, &scopes, now);
        if let Some(found) = self.codes.get_mut(&sha256(code)) {
            found.spent = Some(issued.grant);
        }
        Ok(issued)
    }

    /// RFC 7009 §2.1: a refresh token takes its whole grant with it, an access token goes alone. Another client's token is left as it is.
    pub(super) fn revoke(&mut self, client_id: &str, token: &str) {
        let digest = sha256(token);
        if self.access.get(&digest).is_some_and(|access| *access.bearer.client_id == *client_id) {
            self.access.remove(&digest);
        }
        if let Some(refresh) = self.refresh.get(&digest)
            && let Some(grant) = self.grants.get_mut(&refresh.grant)
            && *grant.client_id == *client_id
        {
            grant.live = false;
        }
    }

    /// Ends every grant of `user`; says how many that were.
    pub(super) fn end_user(&mut self, user: &str) -> usize {
        let theirs = self.grants.values_mut().filter(|grant| grant.live && *grant.user == *user);
        theirs.map(|grant| grant.live = false).count()
    }

    pub(super) fn expire_access_tokens(&mut self) {
        self.access.clear();
    }

    /// Forgets what no answer depends on any more, so that a sandbox that runs for days stays small.
    fn sweep(&mut self, now: UnixMillis) {
        self.tokens_issued += 1;
        if !self.tokens_issued.is_multiple_of(SWEEP_EVERY) {
            return;
        }
        if self.grants.len() > GRANTS_MAX {
            self.grants.retain(|_, grant| grant.live);
        }
        let grants = &self.grants;
        self.access.retain(|_, access| now < access.expires_at && access.grant.is_none_or(|id| grants.contains_key(&id)));
        self.refresh
            .retain(|_, refresh| grants.get(&refresh.grant).is_some_and(|grant| refresh.generation + GENERATIONS_KEPT >= grant.generation));
    }
}

impl Refresh {
    fn is_over(&self, settings: &Settings, now: UnixMillis) -> bool {
        settings.refresh_token_life.is_some_and(|life| now >= self.issued_at.plus(life))
    }
}

/// RFC 7636 §4.6, and RFC 9700 §4.8.2: a verifier without a challenge is a downgrade.
fn check_pkce(challenge: Option<&str>, verifier: Option<&str>) -> Result<(), Refused> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    match (challenge, verifier) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Refused::InvalidGrant("a code_verifier came for a code without a code_challenge")),
        (Some(_), None) => Err(Refused::InvalidGrant("the code_verifier is missing")),
        (Some(challenge), Some(verifier)) => {
            if !is_pkce_text(verifier) {
                return Err(Refused::InvalidRequest("the code_verifier is not 43 to 128 unreserved characters"));
            }
            let expected = Secret::from(URL_SAFE_NO_PAD.encode(sha256(verifier)));
            expected.matches(challenge.as_bytes()).then_some(()).ok_or(Refused::InvalidGrant("the code_verifier does not fit"))
        }
    }
}

/// RFC 7636 §4.1 and §4.2: what a verifier and a challenge are made of.
pub(super) fn is_pkce_text(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis(1_700_000_000_000);
    const APP: &str = Settings::DEV_CLIENT_ID;

    fn at(seconds: u64) -> UnixMillis {
        START.plus(Duration::from_secs(seconds))
    }

    fn text(token: &Option<Secret>) -> String {
        token.as_ref().expect("a refresh token").expose().to_owned()
    }

    #[test]
    fn a_spare_token_of_the_last_generation_is_good_within_the_leeway_only() {
        let settings = Settings::default();
        let mut grants = Grants::default();
        let first = text(&grants.issue(&settings, APP, "megan", &[], START).refresh_token);
        let second = text(&grants.refresh(&settings, APP, &first, None, at(20)).expect("current").refresh_token);
        let spare = text(&grants.refresh(&settings, APP, &first, None, at(25)).expect("leeway").refresh_token);
        assert_ne!(second, spare);
        grants.refresh(&settings, APP, &spare, None, at(40)).expect("either token of the current generation is good");
        grants.refresh(&settings, APP, &second, None, at(45)).expect("the other within its leeway");
        let late = grants.refresh(&settings, APP, &second, None, at(60)).err();
        assert_eq!(late.map(Refused::code), Some("invalid_grant"));
        assert!(grants.iter().all(|(_, grant)| grant.reuse_detected && !grant.live));
    }

    #[test]
    fn a_token_two_generations_old_ends_the_grant_even_within_the_leeway() {
        let settings = Settings::default();
        let mut grants = Grants::default();
        let first = text(&grants.issue(&settings, APP, "megan", &[], START).refresh_token);
        let second = text(&grants.refresh(&settings, APP, &first, None, at(1)).expect("current").refresh_token);
        let third = grants.refresh(&settings, APP, &second, None, at(2)).expect("current");
        assert!(grants.refresh(&settings, APP, &first, None, at(3)).is_err());
        assert!(grants.bearer(third.access_token.expose(), at(3)).is_none(), "its access tokens are dead as well");
        assert!(grants.refresh(&settings, APP, &text(&third.refresh_token), None, at(3)).is_err());
    }

    #[test]
    fn without_rotation_the_answer_holds_no_refresh_token_and_the_old_one_stays_good() {
        let settings = Settings { rotate: false, refresh_token_life: Some(Duration::from_secs(100)), ..Settings::default() };
        let mut grants = Grants::default();
        let token = text(&grants.issue(&settings, APP, "megan", &[], START).refresh_token);
        for seconds in [10, 50, 99] {
            assert!(grants.refresh(&settings, APP, &token, None, at(seconds)).expect("good").refresh_token.is_none());
        }
        assert!(grants.refresh(&settings, APP, &token, None, at(100)).is_err(), "past its life");
    }

    #[test]
    fn another_clients_token_is_refused_and_its_grant_lives_on() {
        let settings = Settings::default();
        let mut grants = Grants::default();
        let issued = grants.issue(&settings, APP, "megan", &["photos.read".to_owned()], START);
        let token = text(&issued.refresh_token);
        assert!(grants.refresh(&settings, "other", &token, None, at(1)).is_err());
        grants.revoke("other", &token);
        let wider = grants.refresh(&settings, APP, &token, Some(&["photos.write".to_owned()]), at(1)).err();
        assert_eq!(wider.map(Refused::code), Some("invalid_scope"));
        assert!(grants.refresh(&settings, APP, &token, None, at(1)).is_ok());
    }

    #[test]
    fn sweeping_keeps_what_is_still_good() {
        let settings = Settings::default();
        let mut grants = Grants::default();
        let mut issued = grants.issue(&settings, APP, "megan", &[], START);
        for round in 0..3 * SWEEP_EVERY {
            issued = grants.refresh(&settings, APP, &text(&issued.refresh_token), None, at(round)).expect("current");
        }
        assert!(grants.refresh.len() <= (SWEEP_EVERY + GENERATIONS_KEPT + 2) as usize, "{}", grants.refresh.len());
        assert!(grants.bearer(issued.access_token.expose(), at(3 * SWEEP_EVERY)).is_some());
    }
}
