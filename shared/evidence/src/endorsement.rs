//! The chain above a report: from a platform's certificates to one of the trusted roots.
//!
//! ```text
//! root (ARK) --signs--> ASK --signs--> VCEK
//! ```
//! What is found here depends on certificates and roots only. What it is worth for one report at one time is asked
//! of the [`Endorsement`] afterwards, each time.

use ring::signature::{
    ECDSA_P384_SHA384_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};

use crate::{
    certificate_table::CertificateTable,
    roots::{RootKind, TrustedRoot, TrustedRoots},
    snp::{SnpReport, TcbVersion},
    verify::VerifyError,
    x509::{Certificate, CertificateError, KeyKind, short_text, small_integer},
};

/// A VCEK whose chain ends in a trusted root, and what its certificate says.
#[derive(Debug)]
pub(crate) struct Endorsement {
    pub(crate) root_name: String,
    pub(crate) root_kind: RootKind,
    pub(crate) product: String,
    pub(crate) vcek: Certificate,
    /// Validity of each certificate of the chain.
    dates: [(&'static str, i64, i64); 3],
}

impl Endorsement {
    /// Finds the root under which the VCEK in `table` is, and verifies the way from there.
    pub(crate) fn verify(table: &[u8], roots: &TrustedRoots) -> Result<Self, VerifyError> {
        let table = CertificateTable::parse(table)?;
        let vcek = Certificate::parse("VCEK", table.vcek.ok_or(VerifyError::Missing("VCEK"))?)?;
        if vcek.key_kind != KeyKind::P384 {
            return Err(CertificateError::Key { who: "VCEK" }.into());
        }
        let product = vcek.amd_extension("2").and_then(short_text);
        let product = product.ok_or(VerifyError::Extension("the product's name"))?.to_owned();
        // AMD's ASK is known beforehand, so a broken one beside the evidence matters only where it is needed.
        let handed_out = table.ask.map(|der| Certificate::parse("ASK", der));
        let (ask, broken) = match handed_out {
            Some(Ok(ask)) => (Some(ask), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        match find(&vcek, ask.as_ref(), roots) {
            Ok((root, ask)) => Ok(Self {
                root_name: root.name.clone(),
                root_kind: root.kind,
                product,
                dates: [dates("ARK", &root.ark), dates("ASK", ask), dates("VCEK", &vcek)],
                vcek,
            }),
            Err(VerifyError::UnknownRoot { issuer, trusted }) => {
                Err(broken.map_or(VerifyError::UnknownRoot { issuer, trusted }, VerifyError::Certificate))
            }
            Err(other) => Err(other),
        }
    }

    /// Whether every certificate of the chain is valid at `now`.
    pub(crate) fn is_valid_at(&self, now: u64) -> Result<(), VerifyError> {
        for (who, not_before, not_after) in self.dates {
            if !i64::try_from(now).is_ok_and(|now| (not_before..=not_after).contains(&now)) {
                return Err(VerifyError::Validity { who, not_before, not_after, now });
            }
        }
        Ok(())
    }

    /// Whether the VCEK is this report's: for the same chip at the same TCB.
    pub(crate) fn is_for(&self, report: &SnpReport) -> Result<(), VerifyError> {
        let vcek = &self.vcek;
        // 57230, section 3.1, table "VCEK Certificate Extensions".
        let version = |suffix, what| {
            vcek.amd_extension(suffix).and_then(small_integer).ok_or(VerifyError::Extension(what))
        };
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
        let unreadable = VerifyError::Extension("the chip's identity");
        let Some(chip) = vcek.amd_extension("4") else { return Err(unreadable) };
        let Some((head, tail)) = report.chip_id.split_at_checked(chip.len()) else { return Err(unreadable) };
        // Turin's identity is 8 bytes; the report pads it with zeroes.
        if !matches!(chip.len(), 8 | 64) || head != chip || tail.iter().any(|&byte| byte != 0) {
            let (certificate, report) = (hex::encode(chip), hex::encode(report.chip_id));
            return Err(VerifyError::Chip { certificate, report });
        }
        Ok(())
    }
}

fn dates(who: &'static str, certificate: &Certificate) -> (&'static str, i64, i64) {
    (who, certificate.not_before, certificate.not_after)
}

fn find<'a>(
    vcek: &Certificate,
    handed_out: Option<&'a Certificate>,
    roots: &'a TrustedRoots,
) -> Result<(&'a TrustedRoot, &'a Certificate), VerifyError> {
    let handed_out = handed_out.filter(|ask| ask.subject == vcek.issuer);
    let mut failure = None;
    for root in roots.iter() {
        let Some(ask) = root.ask.as_ref().or(handed_out) else { continue };
        if ask.subject != vcek.issuer || ask.issuer != root.ark.subject {
            continue;
        }
        match chain(root, ask, vcek) {
            Ok(()) => return Ok((root, ask)),
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

fn chain(root: &TrustedRoot, ask: &Certificate, vcek: &Certificate) -> Result<(), VerifyError> {
    let ark = &root.ark;
    let kind = match root.kind {
        RootKind::Amd => KeyKind::Rsa,
        RootKind::Simulated => KeyKind::P384,
    };
    for (who, certificate) in [("ARK", ark), ("ASK", ask)] {
        if !certificate.is_authority {
            return Err(VerifyError::NotAnAuthority { who });
        }
    }
    for (who, certificate, issuer) in [("ASK", ask, ark), ("VCEK", vcek, ask)] {
        if !is_signed_by(certificate, issuer, kind) {
            return Err(VerifyError::ChainSignature { who, by: issuer.subject_text.clone() });
        }
    }
    Ok(())
}

/// Whether the key of `issuer`, of the one kind its vendor uses, signed `certificate`.
pub(crate) fn is_signed_by(certificate: &Certificate, issuer: &Certificate, kind: KeyKind) -> bool {
    if certificate.signed_with != kind || issuer.key_kind != kind {
        return false;
    }
    let algorithm: &'static dyn VerificationAlgorithm = match kind {
        KeyKind::Rsa => &RSA_PSS_2048_8192_SHA384,
        KeyKind::P384 => &ECDSA_P384_SHA384_ASN1,
    };
    UnparsedPublicKey::new(algorithm, &issuer.key).verify(&certificate.signed, &certificate.signature).is_ok()
}
