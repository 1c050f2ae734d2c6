//! Files that tests of this crate build images from.

/// An ELF file with nothing but a `.modinfo` section, as a kernel module has it.
pub(crate) fn module(release: &str, depends: &str) -> Vec<u8> {
    const HEADER: usize = 64;
    let information = format!("license=GPL\0depends={depends}\0vermagic={release} SMP mod_unload \0");
    let names = b"\0.modinfo\0.shstrtab\0";
    let names_at = HEADER + information.len();
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let section = |name: u32, kind: u32, at: usize, size: usize| {
        let mut header = Vec::new();
        header.extend_from_slice(&name.to_le_bytes());
        header.extend_from_slice(&kind.to_le_bytes());
        for field in [0, 0, at as u64, size as u64] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&1u64.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        header
    };
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend_from_slice(&1u16.to_le_bytes()); // ET_REL
    file.extend_from_slice(&62u16.to_le_bytes()); // EM_X86_64
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&(sections_at as u64).to_le_bytes());
    file.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 0, 0, 64, 3, 2] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(information.as_bytes());
    file.extend_from_slice(names);
    file.resize(sections_at, 0);
    file.extend_from_slice(&[0; 64]);
    file.extend_from_slice(&section(1, 1, HEADER, information.len()));
    file.extend_from_slice(&section(10, 3, names_at, names.len()));
    file
}

/// The least that looks like a static program.
pub(crate) fn program() -> Vec<u8> {
    let mut file = module("", "");
    file[16] = 3; // e_type: ET_DYN, as a static position-independent program has it
    file
}

/// `module("6.1.0-test", "")` as distributions compress it: `xz --check=crc32 --lzma2=dict=1MiB`.
#[rustfmt::skip]
pub(crate) const MODULE_XZ: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21, 0x01, 0x10, 0x00,
    0x00, 0x00, 0xa8, 0x70, 0x8e, 0x86, 0xe0, 0x01, 0x4f, 0x00, 0x7d, 0x5d, 0x00, 0x3f, 0x91, 0x45, 0x84, 0x68,
    0x3d, 0x89, 0xa6, 0xda, 0x9c, 0xa6, 0xac, 0x2e, 0x2b, 0xcb, 0xcd, 0x18, 0xff, 0xc1, 0xf1, 0xea, 0x44, 0x76,
    0xeb, 0x03, 0x5c, 0x4b, 0x99, 0x04, 0x97, 0xeb, 0x14, 0x39, 0x71, 0xc9, 0x11, 0xf3, 0x64, 0x25, 0xce, 0x77,
    0x84, 0xf0, 0x69, 0x98, 0xb4, 0x6a, 0x70, 0xb0, 0x17, 0x26, 0x77, 0x5b, 0x3e, 0xf6, 0x03, 0x63, 0xf2, 0x2b,
    0x24, 0x15, 0xf6, 0x04, 0x5a, 0x4d, 0xb8, 0x87, 0xa6, 0x08, 0xb9, 0xa9, 0x13, 0x8c, 0xf3, 0x20, 0xaa, 0x9c,
    0xe5, 0xc9, 0x12, 0xe1, 0x6b, 0x12, 0x5b, 0xfa, 0xa9, 0x4c, 0x77, 0xf2, 0x17, 0xfd, 0xd5, 0x74, 0xc9, 0x64,
    0x76, 0xbf, 0x91, 0xf1, 0x89, 0xf4, 0x84, 0xc1, 0xdb, 0x88, 0x55, 0xf7, 0xd4, 0xff, 0xaf, 0x7f, 0x91, 0x6d,
    0xaf, 0x76, 0xc8, 0x76, 0x52, 0x87, 0x1c, 0x24, 0x98, 0x32, 0x00, 0xa0, 0x00, 0x00, 0x00, 0x00, 0x2e, 0x49,
    0x67, 0x16, 0x00, 0x01, 0x95, 0x01, 0xd0, 0x02, 0x00, 0x00, 0x6a, 0x17, 0x4e, 0x96, 0x3e, 0x30, 0x0d, 0x8b,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
];

/// A bzImage that says of which release it is, and nothing else.
pub(crate) fn kernel(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x800];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
    image[0x500..0x500 + release.len()].copy_from_slice(release.as_bytes());
    image
}

/// An image as it is described, without its files.
pub(crate) fn image() -> crate::build::Image {
    use postern_launch::{ImageManifest, image::ImageFile};
    use postern_model::Sha256;

    use crate::lock::{Input, KernelInput, Lock, Package};
    let file = |name: &str, byte| ImageFile { file: name.into(), sha256: Sha256::new([byte; 32]), size: 1 };
    let package =
        Package { name: "linux-image".into(), version: "6.1.1-1".into(), sha256: Sha256::new([4; 32]) };
    let kernel = KernelInput {
        release: "6.1.1".into(),
        sha256: Sha256::new([1; 32]),
        profile: None,
        packages: vec![package],
    };
    crate::build::Image {
        manifest: ImageManifest {
            format: 1,
            kernel: file("vmlinuz", 1),
            initramfs: file("initramfs.cpio.zst", 2),
            cmdline: "quiet".into(),
            agent_version: "0.1.0".into(),
            kernel_release: "6.1.1".into(),
            kernel_profile: None,
        },
        lock: Lock::new(Input::of(b"agent"), kernel, Vec::new()),
    }
}
