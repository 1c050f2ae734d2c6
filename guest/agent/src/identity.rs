//! Who this guest is: the owner's init data, checked against what the TEE says was launched.
//!
//! The host carries the init data; its digest is in the launch. A guest whose own evidence names another digest was
//! given somebody else's owner, and must not serve anybody.

use std::sync::Arc;

use postern_evidence::{EvidenceSource, snp};
use postern_launch::{InitData, InitDataError, decode_device};
use postern_model::HostData;
use postern_tunnel::{
    guest::{GuestIdentity, GuestIdentityError},
    server::{Acceptor, AcceptorError},
};

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("init data is refused")]
    InitData(#[from] InitDataError),
    #[error("the guest has no identity")]
    Guest(#[from] GuestIdentityError),
    #[error("the TEE's report cannot be read")]
    Report(#[from] snp::SnpError),
    #[error(
        "init data has digest {found}, but the launch was made for {expected}: the host exchanged one of the two"
    )]
    HostData { expected: HostData, found: HostData },
    #[error("owners cannot be let in")]
    Acceptor(#[from] AcceptorError),
}

/// A guest that knows whose it is, and can prove it.
#[derive(Debug)]
pub struct Identity {
    pub init_data: InitData,
    pub acceptor: Acceptor,
    pub evidence: Arc<dyn EvidenceSource>,
}

impl Identity {
    /// Reads init data as it stands on its device, makes the guest's key, and checks the one against the other. Blocks.
    pub fn establish(device: &[u8], evidence: Arc<dyn EvidenceSource>) -> Result<Self, IdentityError> {
        let (init_data, digest) = decode_device(device)?;
        let identity = GuestIdentity::new(&init_data.pod, evidence.as_ref())?;
        // The TEE's own word, over a channel that the host cannot forge on real hardware; the owner verifies it anyway.
        let report = snp::parse(&identity.evidence().report)?;
        if report.host_data != digest {
            return Err(IdentityError::HostData { expected: report.host_data, found: digest });
        }
        let acceptor = Acceptor::new(&identity, &init_data.owner_ca_der, Arc::clone(&evidence))?;
        Ok(Self { init_data, acceptor, evidence })
    }
}
