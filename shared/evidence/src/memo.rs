//! Remembers what was verified once under a set of roots, so that no chain and no report is verified twice.
//!
//! Whether a signature is good depends on key, message and signature alone, and whether a chain ends in a root on
//! the chain and the roots alone; a remembered answer is the answer. Dates and everything that is compared with the
//! report are looked at again each time. Another set of roots has another memo.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use ring::{
    digest::{Context, SHA256},
    signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey},
};

use crate::endorsement::Endorsement;

/// Platforms whose chain is remembered; a table has some 4 KiB.
const ENDORSEMENTS: usize = 32;
/// Reports that are remembered: one per guest, that of its certificate.
const REPORTS: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Memo {
    /// Certificate tables, byte for byte, with what they were found to endorse.
    endorsements: Mutex<VecDeque<(Vec<u8>, Arc<Endorsement>)>>,
    /// Digests of key, report and signature that were found good.
    reports: Mutex<VecDeque<[u8; 32]>>,
}

impl Memo {
    /// What `table` endorses: remembered, or found out by `verify` now.
    pub(crate) fn endorsement<E>(
        &self,
        table: &[u8],
        verify: impl FnOnce() -> Result<Endorsement, E>,
    ) -> Result<Arc<Endorsement>, E> {
        let known = || self.endorsements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, endorsement)) = known().iter().find(|(known, _)| known == table) {
            return Ok(endorsement.clone());
        }
        let endorsement = Arc::new(verify()?);
        remember(&mut known(), (table.to_vec(), endorsement.clone()), ENDORSEMENTS);
        Ok(endorsement)
    }

    /// Whether `key` signed `report`: remembered, or verified now.
    pub(crate) fn is_signed(&self, report: &[u8], signature: &[u8; 96], key: &[u8]) -> bool {
        let mut context = Context::new(&SHA256);
        for field in [key, report, signature] {
            context.update(&(field.len() as u64).to_le_bytes());
            context.update(field);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());

        let known = || self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&fingerprint) {
            return true;
        }
        let good = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(report, signature).is_ok();
        if good {
            remember(&mut known(), fingerprint, REPORTS);
        }
        good
    }
}

/// Keeps the newest `capacity` entries.
fn remember<T>(entries: &mut VecDeque<T>, entry: T, capacity: usize) {
    if entries.len() >= capacity {
        entries.pop_front();
    }
    entries.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut entries = VecDeque::new();
        for entry in 0..5 {
            remember(&mut entries, entry, 3);
        }
        assert_eq!(entries, [2, 3, 4]);
    }
}
