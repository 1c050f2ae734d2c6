//! Verification: from evidence and trusted roots to a report that its platform is known to have signed.
//!
//! ```text
//! root (ARK) --signs--> ASK --signs--> VCEK --signs--> report
//!                                      \--names--> chip and TCB, which have to be the report's
//! ```
//! A pure function of evidence, roots and time. What a verified report is worth is [`crate::appraise`]'s matter.

use std::sync::Arc;

use crate::{
    appraise::Check,
    certificate_table::TableError,
    endorsement::Endorsement,
    format::{Evidence, Tee},
    roots::{RootKind, TrustedRoots},
    snp::{self, SIGNED_LENGTH, SigningKey, SnpError, SnpReport, TcbVersion},
    x509::CertificateError,
};

/// Why evidence was not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("report cannot be read")]
    Report(#[from] SnpError),
    #[error("certificates beside the report cannot be read")]
    Table(#[from] TableError),
    #[error("certificate chain cannot be read")]
    Certificate(#[from] CertificateError),
    #[error(
        "evidence carries no {0} certificate; the platform's operator has to install the certificates beside the firmware"
    )]
    Missing(&'static str),
    #[error("report is signed by {0}, and only a VCEK is accepted")]
    SigningKey(&'static str),
    #[error("evidence ends in {issuer}, which is none of the trusted roots ({trusted})")]
    UnknownRoot { issuer: String, trusted: String },
    #[error("{who} certificate is not signed by {by}")]
    ChainSignature { who: &'static str, by: String },
    #[error("{who} certificate is not a certificate authority's")]
    NotAnAuthority { who: &'static str },
    #[error("{who} certificate is valid from {not_before} to {not_after} (Unix time), and it is {now}")]
    Validity { who: &'static str, not_before: i64, not_after: i64, now: u64 },
    #[error("VCEK certificate lacks {0}, or has it in a form that is not AMD's")]
    Extension(&'static str),
    #[error("VCEK is for chip {certificate}, the report from chip {report}")]
    Chip { certificate: String, report: String },
    #[error("VCEK is for TCB {certificate}, the report is from TCB {report}")]
    Tcb { certificate: TcbVersion, report: TcbVersion },
    #[error("report is not signed by its VCEK")]
    ReportSignature,
}

impl VerifyError {
    /// The check that this failure belongs to.
    pub fn check(&self) -> Check {
        match self {
            Self::Tcb { .. } => Check::Tcb,
            Self::Report(_)
            | Self::Table(_)
            | Self::Certificate(_)
            | Self::Missing(_)
            | Self::SigningKey(_)
            | Self::UnknownRoot { .. }
            | Self::ChainSignature { .. }
            | Self::NotAnAuthority { .. }
            | Self::Validity { .. }
            | Self::Extension(_)
            | Self::Chip { .. }
            | Self::ReportSignature => Check::VendorChain,
        }
    }
}

/// A report signed by a platform whose chain ends in a trusted root. Only [`verify()`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedReport {
    report: SnpReport,
    endorsement: Arc<Endorsement>,
}

impl VerifiedReport {
    pub fn report(&self) -> &SnpReport {
        &self.report
    }

    /// Name of the root the chain ends in.
    pub fn root_name(&self) -> &str {
        &self.endorsement.root_name
    }

    pub fn root_kind(&self) -> RootKind {
        self.endorsement.root_kind
    }

    /// Name of the processor, as its VCEK certificate gives it.
    pub fn product(&self) -> &str {
        &self.endorsement.product
    }
}

/// Verifies that a platform under one of `roots` signed this report. `now` is Unix time in seconds.
pub fn verify(evidence: &Evidence, roots: &TrustedRoots, now: u64) -> Result<VerifiedReport, VerifyError> {
    match evidence.tee {
        Tee::Snp => verify_snp(evidence, roots, now),
    }
}

fn verify_snp(evidence: &Evidence, roots: &TrustedRoots, now: u64) -> Result<VerifiedReport, VerifyError> {
    let report = snp::parse(&evidence.report)?;
    match report.signing_key {
        SigningKey::Vcek => {}
        SigningKey::Vlek => return Err(VerifyError::SigningKey("a VLEK")),
        SigningKey::None => return Err(VerifyError::SigningKey("nobody")),
        SigningKey::Reserved(_) => return Err(VerifyError::SigningKey("an unknown kind of key")),
    }
    let table = &evidence.certificates;
    let endorsement = roots.memo.endorsement(table, || Endorsement::verify(table, roots))?;
    endorsement.is_valid_at(now)?;
    endorsement.is_for(&report)?;
    // A report that was parsed has its full length.
    let signed = &evidence.report[..SIGNED_LENGTH];
    if !roots.memo.is_signed(signed, &report.signature, &endorsement.vcek.key) {
        return Err(VerifyError::ReportSignature);
    }
    Ok(VerifiedReport { report, endorsement })
}

#[cfg(test)]
mod tests;
