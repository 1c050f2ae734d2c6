//! Asking a TEE for evidence: the only I/O of this crate, and only the attester's.
//!
//! Calls block; run them off an async executor. A real platform answers through configfs-tsm, a simulated one
//! over a stream ([`postern_model::sim_device`]).

use std::fmt::Debug;

use crate::format::Evidence;

mod configfs;
mod simulated;

pub use configfs::ConfigfsTsm;
pub use simulated::Simulated;

/// Something that signs 64 bytes of the caller's choice together with what it knows of this guest.
pub trait EvidenceSource: Send + Sync + Debug {
    /// Asks for evidence over `report_data`. Blocks, but not for ever.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CollectError>;
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("no TEE: {0} does not exist; is this a confidential guest with the tsm_report driver?")]
    NoTee(String),
    #[error("TEE driver calls itself {0:?}; only \"sev_guest\" is supported")]
    Provider(String),
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: String, source: std::io::Error },
    #[error("another process asked the TEE for a report at the same time, {0} times over")]
    Contended(u32),
    #[error("cannot reach the simulated platform at {address}")]
    Connect { address: String, source: std::io::Error },
    #[error("simulated platform did not answer")]
    Stream(#[source] std::io::Error),
    #[error("simulated platform answered nonsense")]
    Protocol(#[from] postern_model::sim_device::SimDeviceError),
    #[error("simulated platform failed before and is not asked again")]
    Broken,
    #[error("report is larger than {limit} bytes")]
    TooLarge { limit: usize },
}
