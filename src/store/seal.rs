//! Sealing: what a store sees of a record is AES-256-GCM ciphertext, bound to the record's place.
//!
//! The envelope is a format byte, the key's id (4 bytes), a random 96-bit nonce, the ciphertext and its 16-byte tag. The associated data are
//! the format byte, the kind's name and the record's key, so a ciphertext moved to another record does not open. Deliberately absent:
//! protection against a whole older store being put back; that needs a witness outside the machine.

use crate::base::ids::random_bytes;
use crate::base::secret::Secret;
use crate::store::{Kind, StoreError};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use std::fmt;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;
const ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + ID_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;

/// One 256-bit key of the operator's, zeroized on drop.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; KEY_LEN]>);

/// Why a text is not a sealing key. Never shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("an encryption key must be base64 of 32 bytes (make one with `attache keygen`), but this is not base64")]
    NotBase64,
    #[error("an encryption key must be base64 of 32 bytes (make one with `attache keygen`), but this holds {0} bytes")]
    Length(usize),
}

impl SealingKey {
    pub fn generate() -> Self {
        SealingKey(Zeroizing::new(random_bytes::<KEY_LEN>()))
    }

    /// Reads base64 in either alphabet, with or without padding; white space around it is let pass.
    pub fn from_base64(text: &str) -> Result<Self, BadKey> {
        const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
        let bytes = GeneralPurpose::new(alphabet, LENIENT).decode(text.trim()).map_err(|_| BadKey::NotBase64)?;
        let bytes = Zeroizing::new(bytes);
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(BadKey::Length(bytes.len()));
        }
        key.copy_from_slice(&bytes);
        Ok(SealingKey(key))
    }

    pub fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(self.0.as_slice()))
    }

    /// What names the key in envelopes, errors and logs; it tells nothing of the key itself.
    pub fn id(&self) -> KeyId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"attache key id\0");
        context.update(self.0.as_slice());
        let mut id = [0u8; ID_LEN];
        id.copy_from_slice(&context.finish().as_ref()[..ID_LEN]);
        KeyId(id)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id())
    }
}

/// The first four bytes of a hash of a key, shown as hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// Which key an envelope says it was sealed with; `None` where it is no envelope of a format known here.
    pub fn of_envelope(envelope: &[u8]) -> Option<KeyId> {
        if envelope.first() != Some(&FORMAT) || envelope.len() < HEADER_LEN + TAG_LEN {
            return None;
        }
        envelope[1..].first_chunk().map(|id| KeyId(*id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Seals with the first of its keys and opens with any of them. Clones share the keys.
#[derive(Clone)]
pub struct Sealer(Arc<[(KeyId, RandomizedNonceKey)]>);

impl Sealer {
    /// Config sees to it that there is a key; without one, nothing can be sealed or opened.
    pub fn new(keys: &[SealingKey]) -> Self {
        #[expect(clippy::expect_used, reason = "AES-256 takes every key of 32 bytes")]
        let ready = |key: &SealingKey| (key.id(), RandomizedNonceKey::new(&AES_256_GCM, key.0.as_slice()).expect("a key of 32 bytes"));
        Sealer(keys.iter().map(ready).collect())
    }

    /// The key that seals.
    pub fn first(&self) -> Option<KeyId> {
        self.0.first().map(|(id, _)| *id)
    }

    /// Whether the key `id` is one that opens.
    pub fn knows(&self, id: KeyId) -> bool {
        self.0.iter().any(|(known, _)| *known == id)
    }

    /// Whether an envelope is of a format that only a newer attache knows.
    pub(super) fn is_newer(envelope: &[u8]) -> bool {
        envelope.first().is_some_and(|format| *format > FORMAT)
    }

    /// The envelope of `plain` for the record `key` of `kind`.
    pub fn seal(&self, kind: Kind, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (id, sealing) = self.0.first().ok_or_else(|| StoreError::Unavailable("no encryption key is configured".into()))?;
        let mut envelope = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
        envelope.push(FORMAT);
        envelope.extend_from_slice(&id.0);
        envelope.extend_from_slice(&[0; NONCE_LEN]);
        envelope.extend_from_slice(plain);
        match sealing.seal_in_place_separate_tag(associated(kind, key), &mut envelope[HEADER_LEN..]) {
            Ok((nonce, tag)) => {
                envelope[1 + ID_LEN..HEADER_LEN].copy_from_slice(nonce.as_ref());
                envelope.extend_from_slice(tag.as_ref());
                Ok(envelope)
            }
            Err(_) => {
                envelope.zeroize();
                Err(StoreError::Unavailable("a record could not be encrypted".into()))
            }
        }
    }

    /// The plaintext of an envelope that was sealed for exactly this record.
    pub fn open(&self, kind: Kind, key: &[u8], envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let damaged = |why: &str| StoreError::Damaged(format!("a record of {} {why}", kind.name()));
        match envelope.first() {
            Some(&FORMAT) => {}
            Some(format) if *format > FORMAT => return Err(damaged("was sealed by a newer attache: run that version")),
            _ => return Err(damaged("is not sealed")),
        }
        if envelope.len() < HEADER_LEN + TAG_LEN {
            return Err(damaged("is cut short"));
        }
        let (mut id, mut nonce) = ([0u8; ID_LEN], [0u8; NONCE_LEN]);
        id.copy_from_slice(&envelope[1..=ID_LEN]);
        nonce.copy_from_slice(&envelope[1 + ID_LEN..HEADER_LEN]);
        let id = KeyId(id);
        let mut buffer = Zeroizing::new(envelope[HEADER_LEN..].to_vec());
        let Some((_, opening)) = self.0.iter().find(|(known, _)| *known == id) else {
            return Err(damaged(&format!(
                "was sealed with the key {id}, which is not configured: add that key to store.encryption_keys (after the first, if another shall encrypt)"
            )));
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = opening
            .open_in_place(nonce, associated(kind, key), &mut buffer)
            .map_err(|_| damaged(&format!("does not open with its key {id}: its bytes were changed or moved")))?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// Format, kind and record key; the kind is closed by a zero byte, which no kind's name holds, so that no two records share it.
fn associated(kind: Kind, key: &[u8]) -> Aad<Vec<u8>> {
    let mut data = Vec::with_capacity(2 + kind.name().len() + key.len());
    data.push(FORMAT);
    data.extend_from_slice(kind.name().as_bytes());
    data.push(0);
    data.extend_from_slice(key);
    Aad::from(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(sealer: &Sealer, kind: Kind, key: &[u8], envelope: &[u8]) -> Result<Vec<u8>, String> {
        sealer.open(kind, key, envelope).map(|plain| plain.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let sealer = Sealer::new(&[SealingKey::generate()]);
        let one = sealer.seal(Kind::Connection, b"one", b"first secret").expect("sealed");
        let two = sealer.seal(Kind::Connection, b"two", b"second secret").expect("sealed");
        assert_eq!(opens(&sealer, Kind::Connection, b"one", &one), Ok(b"first secret".to_vec()));
        assert!(!one.windows(6).any(|bytes| bytes == b"secret"));
        // Swapped between two records, or between kinds.
        assert!(opens(&sealer, Kind::Connection, b"one", &two).is_err());
        assert!(opens(&sealer, Kind::Intent, b"one", &one).is_err());
        for at in 0..one.len() {
            let mut changed = one.clone();
            changed[at] ^= 1;
            assert!(opens(&sealer, Kind::Connection, b"one", &changed).is_err(), "byte {at}");
            assert!(opens(&sealer, Kind::Connection, b"one", &one[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn sealing_twice_differs() {
        let sealer = Sealer::new(&[SealingKey::generate()]);
        let seal = || sealer.seal(Kind::Outbox, b"k", b"same").expect("sealed");
        assert_ne!(seal(), seal());
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, new) = (SealingKey::generate(), SealingKey::generate());
        let before = Sealer::new(std::slice::from_ref(&old)).seal(Kind::Session, b"k", b"v").expect("sealed");
        let both = Sealer::new(&[new.clone(), old.clone()]);
        let after = both.seal(Kind::Session, b"k", b"v").expect("sealed");
        assert_eq!(opens(&both, Kind::Session, b"k", &before), Ok(b"v".to_vec()));
        assert_eq!(opens(&Sealer::new(&[new]), Kind::Session, b"k", &after), Ok(b"v".to_vec()));
        let refusal = opens(&Sealer::new(&[old]), Kind::Session, b"k", &after).expect_err("the key is not there");
        assert!(refusal.contains("add that key"), "{refusal}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let (missing, other) = (SealingKey::generate(), SealingKey::generate());
        let envelope = Sealer::new(std::slice::from_ref(&missing)).seal(Kind::Connection, b"k", b"v").expect("sealed");
        let refusal = opens(&Sealer::new(&[other]), Kind::Connection, b"k", &envelope).expect_err("unknown key");
        assert!(refusal.contains(&missing.id().to_string()), "{refusal}");
        assert!(opens(&Sealer::new(&[]), Kind::Connection, b"k", &envelope).is_err());
        assert!(Sealer::new(&[]).seal(Kind::Connection, b"k", b"v").is_err());
    }

    #[test]
    fn a_newer_format_says_so() {
        let sealer = Sealer::new(&[SealingKey::generate()]);
        let refusal = opens(&sealer, Kind::Connection, b"k", &[FORMAT + 1; 64]).expect_err("newer");
        assert!(refusal.contains("newer attache"), "{refusal}");
    }

    #[test]
    fn keys_are_read_from_either_base64() {
        let key = SealingKey(Zeroizing::new([0xfb; KEY_LEN]));
        let text = key.to_base64();
        let check = |text: &str, expected: Result<(), BadKey>| {
            assert_eq!(SealingKey::from_base64(text).map(|read| assert_eq!(read.id(), key.id())), expected);
        };
        check(text.expose(), Ok(()));
        check(&format!(" {}\n", text.expose()), Ok(()));
        check(text.expose().trim_end_matches('='), Ok(()));
        check(&text.expose().replace('+', "-").replace('/', "_"), Ok(()));
        check("not base64!", Err(BadKey::NotBase64));
        check("", Err(BadKey::Length(0)));
        check("c2hvcnQ=", Err(BadKey::Length(5)));
        assert!(!format!("{key:?}").contains(&text.expose()[..8]));
    }
}
