//! The audit: what the host asked for, and what it was told.

use crate::{Phase, Sha256};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Carried out as asked.
    Allowed,
    /// Answered, but with less than was asked: sanitised, quantised, or a no-op.
    Sanitised,
    /// Refused by the policy.
    Refused,
    /// No such method, or a frame that could not be read.
    Unknown,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Sanitised, Self::Refused, Self::Unknown];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Sanitised => "sanitised",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// One host call. `method` comes from the host and is bounded and escaped by whoever records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Position in the audit, from 0, without gaps: a missing number is a record that was dropped.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch, by the guest's clock.
    pub unix_millis: u64,
    pub method: String,
    pub phase: Phase,
    pub verdict: Verdict,
    /// Digest of the request body as it came in.
    pub request_digest: Sha256,
    /// How many identical records (same method, phase, verdict) in a row this one stands for.
    pub repeated: u64,
}
