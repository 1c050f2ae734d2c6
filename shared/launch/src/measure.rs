//! The launch measurement: the SEV-SNP launch digest over what a launch puts into the guest, byte by byte.
//!
//! The digest starts as 48 zero bytes and is extended once per page, as `SNP_LAUNCH_UPDATE` does (SEV-SNP Firmware ABI
//! 1.55, section 8.17.2): `digest = SHA-384(PAGE_INFO)`, where PAGE_INFO is, little-endian,
//! ```text
//!   0  48  digest so far              98  1  page type
//!  48  48  SHA-384 of the page        99  1  is an IMI page (0)
//!  96   2  length of this (0x70)     100  3  permissions of VMPL 3, 2, 1 (0)
//! 104   8  guest physical address    103  1  reserved (0)
//! ```
//! Pages, in order:
//! 1. type 1 (normal) at 0x810000: zeros, and at 0xC00 QEMU's kernel hashes table (`target/i386/sev.c`,
//!    `PaddedSevHashTable`): SHA-256 of the command line with its NUL, of the initramfs, of the kernel. The place is where
//!    OVMF's AmdSev build keeps it (`PcdQemuHashTableBase`).
//! 2. type 2 (VMSA) at 0xFFFFFFFFF000, once per vCPU in order. Its contents here are not AMD's save area, which a simulated
//!    platform does not have, but: `"POSTERN-VCPU-1\0\0"`, index u32, number of vCPUs u32, machine, CPU model (each a u32
//!    length and its bytes), then zeros.

use postern_model::{Measurement, Sha256};
use ring::digest::{SHA256, SHA384, digest};

const PAGE_SIZE: usize = 4096;
const PAGE_TYPE_NORMAL: u8 = 1;
const PAGE_TYPE_VMSA: u8 = 2;
const PAGE_INFO_LENGTH: u16 = 0x70;
const KERNEL_HASHES_PAGE: u64 = 0x0081_0000;
const KERNEL_HASHES_OFFSET: usize = 0xC00;
const VMSA_PAGE: u64 = 0xFFFF_FFFF_F000;
const VCPU_MAGIC: &[u8; 16] = b"POSTERN-VCPU-1\0\0";

// GUIDs of QEMU's table (target/i386/sev.c), in the mixed-endian order of UEFI.
const TABLE_GUID: [u8; 16] = guid(0x9438_d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21);
const CMDLINE_GUID: [u8; 16] = guid(0x97d0_2dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a);
const INITRAMFS_GUID: [u8; 16] = guid(0x44ba_f731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d);
const KERNEL_GUID: [u8; 16] = guid(0x4de7_9437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b);
const TABLE_ENTRY_LENGTH: u16 = 50;
const TABLE_LENGTH: u16 = 16 + 2 + 3 * TABLE_ENTRY_LENGTH;

/// What a launch puts into the guest. Each field changes the measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredLaunch {
    pub kernel: Sha256,
    pub initramfs: Sha256,
    pub cmdline: String,
    pub cpu_model: String,
    pub vcpus: u32,
    /// QEMU's machine type.
    pub machine: String,
}

/// The launch digest of `launch`.
pub fn launch_digest(launch: &MeasuredLaunch) -> Measurement {
    let mut context = LaunchContext { digest: [0; Measurement::LENGTH] };
    context.update(PAGE_TYPE_NORMAL, KERNEL_HASHES_PAGE, &kernel_hashes_page(launch));
    for index in 0..launch.vcpus {
        context.update(PAGE_TYPE_VMSA, VMSA_PAGE, &vcpu_page(launch, index));
    }
    Measurement::new(context.digest)
}

struct LaunchContext {
    digest: [u8; Measurement::LENGTH],
}

impl LaunchContext {
    fn update(&mut self, page_type: u8, address: u64, page: &[u8]) {
        let mut info = Vec::with_capacity(usize::from(PAGE_INFO_LENGTH));
        info.extend_from_slice(&self.digest);
        info.extend_from_slice(digest(&SHA384, page).as_ref());
        info.extend_from_slice(&PAGE_INFO_LENGTH.to_le_bytes());
        info.extend_from_slice(&[page_type, 0, 0, 0, 0, 0]);
        info.extend_from_slice(&address.to_le_bytes());
        self.digest.copy_from_slice(digest(&SHA384, &info).as_ref());
    }
}

fn kernel_hashes_page(launch: &MeasuredLaunch) -> Vec<u8> {
    let mut cmdline = launch.cmdline.clone().into_bytes();
    cmdline.push(0);
    let mut page = vec![0; KERNEL_HASHES_OFFSET];
    page.extend_from_slice(&TABLE_GUID);
    page.extend_from_slice(&TABLE_LENGTH.to_le_bytes());
    let cmdline = digest(&SHA256, &cmdline);
    let entries: [(&[u8; 16], &[u8]); 3] = [
        (&CMDLINE_GUID, cmdline.as_ref()),
        (&INITRAMFS_GUID, launch.initramfs.as_bytes()),
        (&KERNEL_GUID, launch.kernel.as_bytes()),
    ];
    for (guid, hash) in entries {
        page.extend_from_slice(guid);
        page.extend_from_slice(&TABLE_ENTRY_LENGTH.to_le_bytes());
        page.extend_from_slice(hash);
    }
    page.resize(PAGE_SIZE, 0);
    page
}

/// One page, or more where names are long: nothing is cut off.
fn vcpu_page(launch: &MeasuredLaunch, index: u32) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_SIZE);
    page.extend_from_slice(VCPU_MAGIC);
    page.extend_from_slice(&index.to_le_bytes());
    page.extend_from_slice(&launch.vcpus.to_le_bytes());
    for name in [&launch.machine, &launch.cpu_model] {
        page.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        page.extend_from_slice(name.as_bytes());
    }
    page.resize(page.len().next_multiple_of(PAGE_SIZE), 0);
    page
}

const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let (a, b, c, d) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes(), rest.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> MeasuredLaunch {
        MeasuredLaunch {
            kernel: Sha256::new([1; 32]),
            initramfs: Sha256::new([2; 32]),
            cmdline: "console=ttyS0".into(),
            cpu_model: "max".into(),
            vcpus: 2,
            machine: "microvm".into(),
        }
    }

    #[test]
    fn every_field_counts() {
        let changes: [fn(&mut MeasuredLaunch); 8] = [
            |l| l.kernel = Sha256::new([3; 32]),
            |l| l.initramfs = Sha256::new([3; 32]),
            |l| std::mem::swap(&mut l.kernel, &mut l.initramfs),
            |l| l.cmdline.push(' '),
            |l| l.cpu_model = "host".into(),
            |l| l.vcpus = 1,
            |l| l.vcpus = 3,
            |l| l.machine = "q35".into(),
        ];
        let honest = launch_digest(&launch());
        let mut seen = vec![honest];
        for change in changes {
            let mut changed = launch();
            change(&mut changed);
            let measurement = launch_digest(&changed);
            assert!(!seen.contains(&measurement), "{changed:?}");
            seen.push(measurement);
        }
        assert_eq!(launch_digest(&launch()), honest);
    }

    #[test]
    fn names_are_framed() {
        let mut one = launch();
        let mut other = launch();
        (one.machine, one.cpu_model) = ("q35m".into(), "ax".into());
        (other.machine, other.cpu_model) = ("q35".into(), "max".into());
        assert_ne!(launch_digest(&one), launch_digest(&other));
    }

    #[test]
    fn kernel_hashes_are_laid_out_as_in_qemu() {
        let page = kernel_hashes_page(&launch());
        assert_eq!(page.len(), PAGE_SIZE);
        let table = &page[KERNEL_HASHES_OFFSET..];
        // 9438d606-4f22-4cc9-b479-a793d411fd21, as UEFI writes it.
        assert_eq!(hex::encode(&table[..16]), "06d63894224fc94cb479a793d411fd21");
        assert_eq!(table[16..18], 168u16.to_le_bytes());
        assert_eq!(table[18 + 16..18 + 18], 50u16.to_le_bytes());
        assert_eq!(table[18 + 18..18 + 50], *digest(&SHA256, b"console=ttyS0\0").as_ref());
        assert_eq!(table[68 + 18..68 + 50], [2; 32]);
        assert_eq!(table[118 + 18..118 + 50], [1; 32]);
        assert!(table[168..].iter().all(|&byte| byte == 0));
    }

    /// Changes only together with the format of `MeasuredLaunch`; computed independently with Python's hashlib.
    #[test]
    fn the_digest_of_a_known_launch() {
        let known = "45e0ec6d285554d57fd12b2243e751e1eae19d8b7cb0b048fa3f122c42cbc0b5\
                     b52265f9ecfd7582a42d1d38c907bc1a";
        assert_eq!(launch_digest(&launch()).to_hex(), known);
    }
}
