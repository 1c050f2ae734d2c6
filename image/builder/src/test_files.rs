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

/// What `xz` makes of no input.
pub(crate) const EMPTY_XZ: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x00, 0x00, 0x00, 0x00, 0x1c,
    0xdf, 0x44, 0x21, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
];

/// A bzImage that says of which release it is, and nothing else.
pub(crate) fn kernel(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x800];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
    image[0x500..0x500 + release.len()].copy_from_slice(release.as_bytes());
    image
}
