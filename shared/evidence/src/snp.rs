//! The SNP attestation report, read into plain values.
//!
//! SEV-SNP Firmware ABI 1.58, section 7.3, table "ATTESTATION_REPORT": 1184 bytes, of which the first 672 are
//! signed. The `sev` crate reads the structure and insists on zero where zero is due; what a verifier decides by
//! is taken from there. Parsing proves nothing: see [`crate::verify()`].

use std::{fmt, str::FromStr};

use postern_model::{HostData, Measurement};
use sev::{firmware::guest::AttestationReport, firmware::host::TcbVersion as WireTcb, parser::ByteParser};

/// Length of a report.
pub const REPORT_LENGTH: usize = 1184;
/// Length of the part of a report that the signature covers.
pub const SIGNED_LENGTH: usize = 0x2a0;
/// End of the signature's two scalars, 72 bytes each; the rest is reserved.
const SIGNATURE_END: usize = SIGNED_LENGTH + 144;
/// `SIGNATURE_ALGO` of ECDSA P-384 with SHA-384 (table "Signature Algorithm Encodings").
const ECDSA_P384_SHA384: u32 = 1;
/// Report versions whose layout is known.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

/// Bytes that are no SNP report.
#[derive(Debug, thiserror::Error)]
pub enum SnpError {
    #[error("SNP report has {0} bytes, not {REPORT_LENGTH}")]
    Length(usize),
    #[error("SNP report has version {0}; versions 2 to 5 are understood")]
    Version(u32),
    #[error("SNP report breaks the layout of its version")]
    Layout(#[source] std::io::Error),
    #[error("SNP report names signature algorithm {0}; only ECDSA P-384 with SHA-384 (1) exists")]
    Algorithm(u32),
    #[error("signature of the SNP report has bytes beyond those of two P-384 scalars")]
    Signature,
}

/// Security versions of the firmware parts that make up the trusted computing base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcbVersion {
    /// Firmware configuration; from Turin on.
    pub fmc: Option<u8>,
    pub boot_loader: u8,
    pub tee: u8,
    pub snp: u8,
    pub microcode: u8,
}

impl TcbVersion {
    /// Whether no part is below `floor`. A part the floor does not name is not asked for.
    pub fn is_at_least(&self, floor: &Self) -> bool {
        self.fmc.unwrap_or(0) >= floor.fmc.unwrap_or(0)
            && self.boot_loader >= floor.boot_loader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl From<WireTcb> for TcbVersion {
    fn from(wire: WireTcb) -> Self {
        Self {
            fmc: wire.fmc,
            boot_loader: wire.bootloader,
            tee: wire.tee,
            snp: wire.snp,
            microcode: wire.microcode,
        }
    }
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc={fmc},")?;
        }
        let Self { boot_loader, tee, snp, microcode, .. } = self;
        write!(f, "boot_loader={boot_loader},tee={tee},snp={snp},microcode={microcode}")
    }
}

/// A TCB version that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no TCB version; write it as boot_loader=3,tee=0,snp=8,microcode=115 (fmc=N first, from Turin on)"
)]
pub struct TcbParseError(String);

impl FromStr for TcbVersion {
    type Err = TcbParseError;

    /// Reads what [`fmt::Display`] writes. Parts may come in any order; each of them but `fmc` has to be there.
    fn from_str(text: &str) -> Result<Self, TcbParseError> {
        let error = || TcbParseError(text.chars().take(100).collect());
        let mut parts = [None::<u8>; 5];
        const NAMES: [&str; 5] = ["fmc", "boot_loader", "tee", "snp", "microcode"];
        for part in text.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or_else(error)?;
            let slot = NAMES.iter().position(|known| *known == name).ok_or_else(error)?;
            if parts[slot].replace(value.parse().map_err(|_| error())?).is_some() {
                return Err(error());
            }
        }
        let [fmc, Some(boot_loader), Some(tee), Some(snp), Some(microcode)] = parts else {
            return Err(error());
        };
        Ok(Self { fmc, boot_loader, tee, snp, microcode })
    }
}

/// What the guest was launched to permit (section 4.3, table "Guest Policy").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPolicy {
    pub raw: u64,
}

impl GuestPolicy {
    /// The host may run the guest on two threads of one core.
    pub fn smt(self) -> bool {
        self.bit(16)
    }

    /// A migration agent may take the guest elsewhere.
    pub fn migrate_ma(self) -> bool {
        self.bit(18)
    }

    /// The host may read and write the guest's memory.
    pub fn debug(self) -> bool {
        self.bit(19)
    }

    /// The guest may run on one socket only.
    pub fn single_socket(self) -> bool {
        self.bit(20)
    }

    fn bit(self, bit: u32) -> bool {
        self.raw >> bit & 1 == 1
    }
}

/// Which key signed a report (`KEY_INFO`, bits 4:2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKey {
    Vcek,
    Vlek,
    None,
    Reserved(u8),
}

/// One SNP report, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpReport {
    pub version: u32,
    pub guest_svn: u32,
    pub policy: GuestPolicy,
    /// Privilege level of the requester; 0 is the most privileged.
    pub vmpl: u32,
    pub platform_info: u64,
    pub signing_key: SigningKey,
    pub report_data: [u8; 64],
    pub measurement: Measurement,
    pub host_data: HostData,
    /// Random, one per launched guest.
    pub report_id: [u8; 32],
    pub chip_id: [u8; 64],
    pub current_tcb: TcbVersion,
    pub reported_tcb: TcbVersion,
    pub committed_tcb: TcbVersion,
    pub launch_tcb: TcbVersion,
    /// `r || s`, big-endian, 48 bytes each.
    pub signature: [u8; 96],
}

/// Reads a report. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<SnpReport, SnpError> {
    let bytes: &[u8; REPORT_LENGTH] = bytes.try_into().map_err(|_| SnpError::Length(bytes.len()))?;
    let version = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    if !VERSIONS.contains(&version) {
        return Err(SnpError::Version(version));
    }
    let wire = AttestationReport::from_bytes(bytes).map_err(SnpError::Layout)?;
    if wire.sig_algo != ECDSA_P384_SHA384 {
        return Err(SnpError::Algorithm(wire.sig_algo));
    }
    // Not signed, so nothing but zero may stand there: one report has one form.
    if bytes[SIGNATURE_END..].iter().any(|&byte| byte != 0) {
        return Err(SnpError::Signature);
    }
    let mut signature = [0; 96];
    for (out, scalar) in signature.chunks_exact_mut(48).zip([wire.signature.r(), wire.signature.s()]) {
        if scalar[48..].iter().any(|&byte| byte != 0) {
            return Err(SnpError::Signature);
        }
        out.iter_mut().zip(scalar[..48].iter().rev()).for_each(|(out, byte)| *out = *byte);
    }
    Ok(SnpReport {
        version,
        guest_svn: wire.guest_svn,
        policy: GuestPolicy { raw: wire.policy.into() },
        vmpl: wire.vmpl,
        platform_info: wire.plat_info.into(),
        signing_key: match bytes[0x48] >> 2 & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            other => SigningKey::Reserved(other),
        },
        report_data: wire.report_data,
        measurement: Measurement::new(wire.measurement),
        host_data: HostData::new(wire.host_data),
        report_id: wire.report_id,
        chip_id: wire.chip_id,
        current_tcb: wire.current_tcb.into(),
        reported_tcb: wire.reported_tcb.into(),
        committed_tcb: wire.committed_tcb.into(),
        launch_tcb: wire.launch_tcb.into(),
        signature,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcb(text: &str) -> TcbVersion {
        text.parse().unwrap()
    }

    #[test]
    fn a_tcb_is_compared_part_by_part() {
        let floor = tcb("boot_loader=3,tee=0,snp=8,microcode=115");
        assert!(floor.is_at_least(&floor));
        assert!(tcb("boot_loader=4,tee=1,snp=9,microcode=255").is_at_least(&floor));
        for below in [
            "boot_loader=2,tee=9,snp=9,microcode=255",
            "boot_loader=9,tee=9,snp=7,microcode=255",
            "boot_loader=9,tee=9,snp=9,microcode=114",
        ] {
            assert!(!tcb(below).is_at_least(&floor), "{below}");
        }
        assert!(!floor.is_at_least(&TcbVersion { fmc: Some(1), ..floor }));
    }

    #[test]
    fn a_tcb_is_read_as_written() {
        for text in
            ["boot_loader=3,tee=0,snp=8,microcode=115", "fmc=1,boot_loader=3,tee=0,snp=8,microcode=115"]
        {
            assert_eq!(tcb(text).to_string(), text);
        }
        for text in [
            "",
            "boot_loader=3",
            "boot_loader=3,tee=0,snp=8,microcode=256",
            "tee=0,tee=0,boot_loader=3,snp=8,microcode=1",
        ] {
            assert!(text.parse::<TcbVersion>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            version in 0u32..8,
            places in proptest::collection::vec((0usize..REPORT_LENGTH, any::<u8>()), 0..40),
        ) {
            let mut bytes = vec![0; REPORT_LENGTH];
            bytes[..4].copy_from_slice(&version.to_le_bytes());
            bytes[0x34] = 1;
            bytes[0x1a0] = 1;
            for (place, byte) in places {
                bytes[place] = byte;
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn any_length_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let _ = parse(&bytes);
        }
    }
}
