//! `attache keygen`: a new encryption key on standard output.

use super::{Outcome, print};
use crate::store::seal::SealingKey;

pub(super) fn run() -> Outcome {
    print(&format!("{}\n", SealingKey::generate().to_base64().expose()))
}
