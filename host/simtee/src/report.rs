//! Writes SNP attestation reports, byte for byte.
//!
//! SEV-SNP Firmware ABI 1.58, section 7.3, table "ATTESTATION_REPORT". The signature covers the first 0x2a0 bytes;
//! its `r` and `s` are 72 bytes each, little-endian (table "Format for ECDSA P-384 with SHA-384 Signature").

use postern_model::{HostData, Measurement};

/// Length of a report.
pub(crate) const LENGTH: usize = 1184;
/// Length of the part that is signed.
pub(crate) const SIGNED: usize = 0x2a0;

/// Security versions of a Milan's firmware parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcb {
    pub boot_loader: u8,
    pub tee: u8,
    pub snp: u8,
    pub microcode: u8,
}

impl Tcb {
    /// What a simulated platform claims to run.
    pub const CURRENT: Self = Self { boot_loader: 3, tee: 0, snp: 8, microcode: 115 };

    fn to_bytes(self) -> [u8; 8] {
        [self.boot_loader, self.tee, 0, 0, 0, 0, self.snp, self.microcode]
    }
}

/// Content of a report before it is signed. Fields that a simulated platform has no use for are zero.
#[derive(Debug, Clone)]
pub struct ReportFields {
    pub version: u32,
    pub guest_svn: u32,
    pub policy: u64,
    pub vmpl: u32,
    pub signature_algorithm: u32,
    pub platform_info: u64,
    pub key_info: u32,
    pub report_data: [u8; 64],
    pub measurement: Measurement,
    pub host_data: HostData,
    pub report_id: [u8; 32],
    /// Family, model and stepping of the processor; in version 3 and later.
    pub cpuid: [u8; 3],
    pub chip_id: [u8; 64],
    pub current_tcb: Tcb,
    pub reported_tcb: Tcb,
    pub committed_tcb: Tcb,
    pub launch_tcb: Tcb,
}

/// Firmware 1.55.21: build, minor, major, reserved.
const FIRMWARE: [u8; 4] = [21, 55, 1, 0];

impl ReportFields {
    /// The whole report, its signature still zero.
    pub(crate) fn unsigned(&self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0x000, &self.version.to_le_bytes());
        put(0x004, &self.guest_svn.to_le_bytes());
        put(0x008, &self.policy.to_le_bytes());
        put(0x030, &self.vmpl.to_le_bytes());
        put(0x034, &self.signature_algorithm.to_le_bytes());
        put(0x038, &self.current_tcb.to_bytes());
        put(0x040, &self.platform_info.to_le_bytes());
        put(0x048, &self.key_info.to_le_bytes());
        put(0x050, &self.report_data);
        put(0x090, self.measurement.as_bytes());
        put(0x0c0, self.host_data.as_bytes());
        put(0x140, &self.report_id);
        // No migration agent: all ones.
        put(0x160, &[0xff; 32]);
        put(0x180, &self.reported_tcb.to_bytes());
        if self.version >= 3 {
            put(0x188, &self.cpuid);
        }
        put(0x1a0, &self.chip_id);
        put(0x1e0, &self.committed_tcb.to_bytes());
        put(0x1e8, &FIRMWARE);
        put(0x1ec, &FIRMWARE);
        put(0x1f0, &self.launch_tcb.to_bytes());
        bytes
    }
}

/// Writes a signature (`r || s`, big-endian, 48 bytes each) into a report.
pub(crate) fn put_signature(report: &mut [u8], signature: &[u8]) {
    for (scalar, at) in signature.chunks_exact(48).zip([SIGNED, SIGNED + 72]) {
        for (out, byte) in report[at..at + 48].iter_mut().zip(scalar.iter().rev()) {
            *out = *byte;
        }
    }
}
