//! Remembers signatures that were found good, so that no chain is verified twice.
//!
//! Whether a signature is good depends on key, message and signature alone; a remembered answer is the answer.
//! Validity, names, extensions and everything else that may change between two looks is always looked at again.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use ring::{
    digest::{Context, SHA256},
    signature::{UnparsedPublicKey, VerificationAlgorithm},
};

/// A chain has two signatures and a report one; this is room for a few dozen pods.
const CAPACITY: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct SignatureMemo {
    good: Mutex<VecDeque<[u8; 32]>>,
}

/// One signature to verify: `name` stands for the algorithm in the memo.
pub(crate) struct Signed<'a> {
    pub(crate) name: &'static str,
    pub(crate) algorithm: &'static dyn VerificationAlgorithm,
    pub(crate) key: &'a [u8],
    pub(crate) message: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl SignatureMemo {
    /// Whether the signature is good: remembered, or verified now.
    pub(crate) fn is_good(&self, signed: &Signed<'_>) -> bool {
        let key = signed.fingerprint();
        let good = || self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good().contains(&key) {
            return true;
        }
        let verified = UnparsedPublicKey::new(signed.algorithm, signed.key)
            .verify(signed.message, signed.signature)
            .is_ok();
        if verified {
            let mut good = good();
            if good.len() == CAPACITY {
                good.pop_front();
            }
            good.push_back(key);
        }
        verified
    }
}

impl Signed<'_> {
    fn fingerprint(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for field in [self.name.as_bytes(), self.key, self.message, self.signature] {
            context.update(&(field.len() as u64).to_le_bytes());
            context.update(field);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }
}
