//! Attestation evidence: its formats, what it is bound to, how it is verified and appraised.
//!
//! Everything here is a function of bytes, time and collateral, and does no I/O; only [`collect`] talks to a TEE.
//! The attester uses [`collect`] and [`binding`], the verifier [`verify`] and [`appraise`]: a program that links
//! one half does not carry the other.

#![forbid(unsafe_code)]

pub mod appraise;
pub mod binding;
pub mod certificate_table;
pub mod collect;
mod endorsement;
pub mod format;
mod memo;
pub mod roots;
pub mod snp;
pub mod verify;
mod x509;

pub use appraise::{Appraisal, AppraisalError, Check, ReferenceValues, appraise};
pub use collect::{CollectError, EvidenceSource};
pub use format::{Evidence, FormatError, Tee};
pub use roots::{RootError, RootKind, TrustedRoot, TrustedRoots};
pub use snp::{SnpReport, TcbVersion};
pub use verify::{VerifiedReport, VerifyError, verify};
