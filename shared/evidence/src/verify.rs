//! Verification: from evidence and trusted roots to a report that its platform is known to have signed.
//!
//! ```text
//! root (ARK) --signs--> ASK --signs--> VCEK --signs--> report
//!                                      \--names--> chip and TCB, which have to be the report's
//! ```
//! A pure function of evidence, roots and time. What a verified report is worth is [`crate::appraise`]'s matter.

use ring::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, VerificationAlgorithm,
};

use crate::{
    appraise::Check,
    certificate_table::{CertificateTable, TableError},
    format::{Evidence, Tee},
    memo::{SignatureMemo, Signed},
    roots::{RootKind, TrustedRoot, TrustedRoots},
    snp::{self, SIGNED_LENGTH, SigningKey, SnpError, SnpReport, TcbVersion},
    x509::{Certificate, CertificateError, KeyKind, short_text, small_integer},
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
    root_name: String,
    root_kind: RootKind,
    product: String,
}

impl VerifiedReport {
    pub fn report(&self) -> &SnpReport {
        &self.report
    }

    /// Name of the root the chain ends in.
    pub fn root_name(&self) -> &str {
        &self.root_name
    }

    pub fn root_kind(&self) -> RootKind {
        self.root_kind
    }

    /// Name of the processor, as its VCEK certificate gives it.
    pub fn product(&self) -> &str {
        &self.product
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
    let table = CertificateTable::parse(&evidence.certificates)?;
    let vcek = Certificate::parse("VCEK", table.vcek.ok_or(VerifyError::Missing("VCEK"))?)?;
    let handed_out = table.ask.map(|der| Certificate::parse("ASK", der)).transpose();

    let root = match handed_out {
        // AMD's ASK is known beforehand, so a broken one beside the evidence only matters where it is needed.
        Ok(handed_out) => chain(&vcek, handed_out.as_ref(), roots, now)?,
        Err(error) => chain(&vcek, None, roots, now).map_err(|other| match other {
            VerifyError::UnknownRoot { .. } => error.into(),
            other => other,
        })?,
    };
    let product = vcek_matches(&vcek, &report)?;
    let signed = Signed {
        name: "report",
        algorithm: &ECDSA_P384_SHA384_FIXED,
        key: &vcek.key,
        message: &evidence.report[..SIGNED_LENGTH],
        signature: &report.signature,
    };
    if !roots.memo.is_good(&signed) {
        return Err(VerifyError::ReportSignature);
    }
    Ok(VerifiedReport { report, root_name: root.name.clone(), root_kind: root.kind, product })
}

/// Finds the root under which `vcek` is, and verifies the way from there.
fn chain<'a>(
    vcek: &Certificate,
    handed_out: Option<&Certificate>,
    roots: &'a TrustedRoots,
    now: u64,
) -> Result<&'a TrustedRoot, VerifyError> {
    let handed_out = handed_out.filter(|ask| ask.subject == vcek.issuer);
    let mut failure = None;
    for root in roots.iter() {
        let Some(ask) = root.ask.as_ref().or(handed_out) else { continue };
        if ask.subject != vcek.issuer || ask.issuer != root.ark.subject {
            continue;
        }
        match chain_to(root, ask, vcek, &roots.memo, now) {
            Ok(()) => return Ok(root),
            // Two roots may have one name: the next may be the right one.
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| VerifyError::UnknownRoot {
        issuer: handed_out.map_or(&vcek.issuer_text, |ask| &ask.issuer_text).clone(),
        trusted: match roots.iter().map(TrustedRoot::name).collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => "none is trusted".into(),
            names => names,
        },
    }))
}

fn chain_to(
    root: &TrustedRoot,
    ask: &Certificate,
    vcek: &Certificate,
    memo: &SignatureMemo,
    now: u64,
) -> Result<(), VerifyError> {
    let ark = &root.ark;
    let kind = match root.kind {
        RootKind::Amd => KeyKind::Rsa,
        RootKind::Simulated => KeyKind::P384,
    };
    for (who, certificate) in [("ARK", ark), ("ASK", ask), ("VCEK", vcek)] {
        let (not_before, not_after) = (certificate.not_before, certificate.not_after);
        if !i64::try_from(now).is_ok_and(|now| (not_before..=not_after).contains(&now)) {
            return Err(VerifyError::Validity { who, not_before, not_after, now });
        }
    }
    for (who, certificate) in [("ARK", ark), ("ASK", ask)] {
        if !certificate.is_authority {
            return Err(VerifyError::NotAnAuthority { who });
        }
    }
    for (who, certificate, issuer) in [("ASK", ask, ark), ("VCEK", vcek, ask)] {
        if !is_signed_by(certificate, issuer, kind, memo) {
            return Err(VerifyError::ChainSignature { who, by: issuer.subject_text.clone() });
        }
    }
    Ok(())
}

/// Whether the key of `issuer`, of the one kind its vendor uses, signed `certificate`.
pub(crate) fn is_signed_by(
    certificate: &Certificate,
    issuer: &Certificate,
    kind: KeyKind,
    memo: &SignatureMemo,
) -> bool {
    if certificate.signed_with != kind || issuer.key_kind != kind {
        return false;
    }
    let (name, algorithm): (_, &'static dyn VerificationAlgorithm) = match kind {
        KeyKind::Rsa => ("rsa-pss", &RSA_PSS_2048_8192_SHA384),
        KeyKind::P384 => ("ecdsa", &ECDSA_P384_SHA384_ASN1),
    };
    memo.is_good(&Signed {
        name,
        algorithm,
        key: &issuer.key,
        message: &certificate.signed,
        signature: &certificate.signature,
    })
}

/// Holds the VCEK's word on chip and TCB against the report's. Gives the product's name.
fn vcek_matches(vcek: &Certificate, report: &SnpReport) -> Result<String, VerifyError> {
    if vcek.key_kind != KeyKind::P384 {
        return Err(VerifyError::Certificate(CertificateError::Key { who: "VCEK" }));
    }
    // 57230, section 3.1, table "VCEK Certificate Extensions".
    let version =
        |suffix, what| vcek.amd_extension(suffix).and_then(small_integer).ok_or(VerifyError::Extension(what));
    let certificate = TcbVersion {
        fmc: match report.reported_tcb.fmc {
            Some(_) => Some(version("3.9", "the version of the FMC")?),
            None => None,
        },
        boot_loader: version("3.1", "the version of the boot loader")?,
        tee: version("3.2", "the version of the TEE")?,
        snp: version("3.3", "the version of the SNP firmware")?,
        microcode: version("3.8", "the version of the microcode")?,
    };
    if certificate != report.reported_tcb {
        return Err(VerifyError::Tcb { certificate, report: report.reported_tcb });
    }
    let chip = vcek.amd_extension("4").ok_or(VerifyError::Extension("the chip's identity"))?;
    // Turin's identity is 8 bytes; the report pads it with zeroes.
    let (head, tail) =
        report.chip_id.split_at_checked(chip.len()).ok_or(VerifyError::Extension("the chip's identity"))?;
    if !matches!(chip.len(), 8 | 64) || head != chip || tail.iter().any(|&byte| byte != 0) {
        return Err(VerifyError::Chip {
            certificate: hex::encode(chip),
            report: hex::encode(report.chip_id),
        });
    }
    let product = vcek.amd_extension("2").and_then(short_text);
    Ok(product.ok_or(VerifyError::Extension("the product's name"))?.to_owned())
}

#[cfg(test)]
mod tests;
