//! What the image needs to know of ELF files: that the agent runs where there is nothing else, and what a kernel
//! module says of itself.

use object::{
    Endianness, Object, ObjectSection,
    elf::{EM_X86_64, ET_DYN, ET_EXEC, PT_INTERP},
    read::elf::{ElfFile64, FileHeader, ProgramHeader},
};

/// A program that cannot be process 1 of a guest.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("not a 64-bit ELF file")]
    NotElf(#[source] object::Error),
    #[error("built for another machine than x86-64 (ELF machine {0})")]
    Machine(u16),
    #[error("an ELF file, but not a program")]
    NotAProgram,
    #[error("linked dynamically, and a guest has no libraries; build it with -C target-feature=+crt-static")]
    Dynamic,
}

/// Checks that `file` is a static x86-64 program.
pub fn check_static_program(file: &[u8]) -> Result<(), ProgramError> {
    let elf = ElfFile64::<Endianness>::parse(file).map_err(ProgramError::NotElf)?;
    let endian = elf.endian();
    let machine = elf.elf_header().e_machine(endian);
    if machine != EM_X86_64 {
        return Err(ProgramError::Machine(machine.0));
    }
    if ![ET_EXEC, ET_DYN].contains(&elf.elf_header().e_type(endian)) {
        return Err(ProgramError::NotAProgram);
    }
    let interpreted = elf.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP);
    if interpreted { Err(ProgramError::Dynamic) } else { Ok(()) }
}

/// Whether the symbols, which the guest never reads, are still in.
pub fn has_symbols(file: &[u8]) -> bool {
    ElfFile64::<Endianness>::parse(file).is_ok_and(|elf| elf.section_by_name(".symtab").is_some())
}

/// Most that a program may say of its compilers.
const MAX_COMMENT: usize = 64 << 10;

/// The compilers and the linker that made a program, by what they have written into it: (name, version).
pub fn made_by(file: &[u8]) -> Vec<(&'static str, String)> {
    const NAMES: [(&str, &str); 3] = [("gcc", "GCC: "), ("linker", "Linker: "), ("rustc", "rustc version ")];
    let Ok(elf) = ElfFile64::<Endianness>::parse(file) else { return Vec::new() };
    let comment = elf.section_by_name(".comment").and_then(|section| section.data().ok()).unwrap_or_default();
    let comment = &comment[..comment.len().min(MAX_COMMENT)];
    let lines = || comment.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
    let version = |prefix| lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    NAMES.iter().filter_map(|&(name, prefix)| Some((name, version(prefix)?))).collect()
}

/// A file that is not a kernel module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleFormatError {
    #[error("not a 64-bit ELF file")]
    NotElf(#[source] object::Error),
    #[error("no .modinfo section")]
    NoInformation,
    #[error("no kernel release (vermagic) in its .modinfo section")]
    NoRelease,
}

/// What a module's `.modinfo` section says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The modules that have to be loaded before it, by name.
    pub depends: Vec<String>,
    /// The release of the kernel it was built for.
    pub release: String,
}

/// Reads what a module says of itself.
pub fn module_info(file: &[u8]) -> Result<ModuleInfo, ModuleFormatError> {
    let elf = ElfFile64::<Endianness>::parse(file).map_err(ModuleFormatError::NotElf)?;
    let section = elf.section_by_name(".modinfo").ok_or(ModuleFormatError::NoInformation)?;
    let data = section.data().map_err(ModuleFormatError::NotElf)?;
    let values = |key: &'static str| {
        data.split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok())
            .filter_map(move |entry| entry.strip_prefix(key)?.strip_prefix('='))
    };
    let depends = values("depends").flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    let release = values("vermagic").next().and_then(|magic| magic.split(' ').next());
    Ok(ModuleInfo {
        depends: depends.map(str::to_owned).collect(),
        release: release.ok_or(ModuleFormatError::NoRelease)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_static_program() {
        // Every program of this workspace is static, and so is this one.
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        check_static_program(&this).unwrap();
        assert!(matches!(module_info(&this), Err(ModuleFormatError::NoInformation)));
        let made_by = made_by(&this);
        assert!(
            made_by.iter().any(|(name, version)| *name == "rustc" && version.starts_with("1.")),
            "{made_by:?}"
        );
    }

    #[test]
    fn refuses_a_dynamic_program() {
        let shell = std::fs::read("/bin/sh").unwrap();
        assert!(matches!(check_static_program(&shell), Err(ProgramError::Dynamic)));
    }

    #[test]
    fn refuses_what_is_no_program() {
        let module = crate::test_files::module("6.1.0", "");
        assert!(matches!(check_static_program(&module), Err(ProgramError::NotAProgram)));
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0; 4096]] {
            assert!(matches!(check_static_program(bytes), Err(ProgramError::NotElf(_))));
            assert!(matches!(module_info(bytes), Err(ModuleFormatError::NotElf(_))));
            assert_eq!(made_by(bytes), []);
        }
    }

    #[test]
    fn refuses_another_machine() {
        let mut this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        this[18] = 0xb7; // e_machine: AArch64
        assert!(matches!(check_static_program(&this), Err(ProgramError::Machine(0xb7))));
    }
}
