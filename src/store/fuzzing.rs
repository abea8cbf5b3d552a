//! What the fuzz targets may call of this room, which is not public otherwise. Built under `cfg(fuzzing)`, and with the tests, so that a change that breaks a target is seen at once.

use super::codec;
use crate::base::ids::ConnectionKey;

/// Reads bytes as each record there is, and answers what each that reads is written as again.
pub fn rewritten(bytes: &[u8]) -> Vec<Vec<u8>> {
    let key = || ConnectionKey::new("google", "megan@personalemail.com", "default");
    let connection = codec::decode_connection(key(), bytes).ok().and_then(|record| codec::encode_connection(&record).ok());
    let intent = codec::decode_intent(key(), bytes).ok().and_then(|record| codec::encode_intent(&record).ok());
    [connection, intent].into_iter().flatten().map(|bytes| bytes.to_vec()).collect()
}
