//! Ways to misconfigure a platform, or to make it lie: for tests that show a verifier noticing.
//!
//! Nothing outside tests has business here.

use std::sync::Arc;

use crate::platform::{GuestContext, Platform, PlatformError, Vcek};

pub use crate::{platform::VcekFacts, report::ReportFields};

/// Guest policy: the host may read and write the guest's memory.
pub const POLICY_DEBUG: u64 = 1 << 19;
/// Guest policy: a migration agent may take the guest elsewhere.
pub const POLICY_MIGRATE: u64 = 1 << 18;

/// The same guest, with reports signed over whatever `alter` makes of their fields.
#[must_use]
pub fn alter(mut guest: GuestContext, alter: impl FnOnce(&mut ReportFields)) -> GuestContext {
    alter(&mut guest.fields);
    guest
}

/// The same platform with another VCEK, properly issued, whose certificate says what `alter` makes of it.
pub fn reissue_vcek(
    platform: &Platform,
    alter: impl FnOnce(&mut VcekFacts),
) -> Result<Platform, PlatformError> {
    let mut facts = platform.vcek.facts;
    alter(&mut facts);
    let vcek = Arc::new(Vcek::make(&platform.chain, facts)?);
    Ok(Platform { vcek, ..platform.clone() })
}

/// The same guest, handing out other certificates than its own.
#[must_use]
pub fn with_certificates(mut guest: GuestContext, certificates: Vec<u8>) -> GuestContext {
    guest.certificates = certificates;
    guest
}
