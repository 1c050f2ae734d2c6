//! Which devices a container may open or make, enforced by the kernel whatever the container's capabilities.
//!
//! In cgroup v1 that is a controller, which libcontainer sets up from [`ALLOWED`]. In v2 it is a small program on the
//! control group; we write it ourselves, since the usual way needs a C library several times the size of it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

use crate::sys::bpf::{Instruction, attach_device_filter};

/// Character devices that a container may have: major, and minor if not any. All else is refused, block devices
/// (the guest's own disks) and making their nodes included.
pub(crate) const ALLOWED: [(u32, Option<u32>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console, a pseudo-terminal here
    (5, Some(2)), // ptmx
    (136, None),  // pts
];

/// Restricts every process that is or will be in `cgroup` (v2) to [`ALLOWED`].
pub(crate) fn restrict(cgroup: &Path) -> io::Result<()> {
    let directory =
        rustix::fs::open(cgroup, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    restrict_descriptor(directory.as_fd())
}

fn restrict_descriptor(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    attach_device_filter(cgroup, &program())
}

/// Registers (linux/bpf.h): r0 is the verdict, r1 the context on entry.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;
/// Offsets in `struct bpf_cgroup_dev_ctx`: access in the high and type in the low half of the first word.
const ACCESS_TYPE_AT: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;
/// `BPF_DEVCG_DEV_CHAR`.
const CHARACTER_DEVICE: i32 = 2;

/// For each allowed device: skip to the next unless major and minor match, else allow. At the end: refuse.
fn program() -> Vec<Instruction> {
    let mut program = vec![
        load_word(TYPE, ACCESS_TYPE_AT),
        and(TYPE, 0xffff),
        load_word(MAJOR, MAJOR_AT),
        load_word(MINOR, MINOR_AT),
        skip_unless(TYPE, CHARACTER_DEVICE, 0),
    ];
    let type_check = program.len() - 1;
    for (major, minor) in ALLOWED {
        let allow = [set(VERDICT, 1), exit()];
        match minor {
            Some(minor) => program.extend([
                skip_unless(MAJOR, major.cast_signed(), 3),
                skip_unless(MINOR, minor.cast_signed(), 2),
            ]),
            None => program.push(skip_unless(MAJOR, major.cast_signed(), 2)),
        }
        program.extend(allow);
    }
    let refuse = program.len();
    program[type_check].offset = i16::try_from(refuse - type_check - 1).unwrap_or(i16::MAX);
    program.extend([set(VERDICT, 0), exit()]);
    program
}

/// Operation codes: class, size or source, and operation (linux/bpf.h, linux/bpf_common.h).
fn load_word(to: u8, offset: i16) -> Instruction {
    const LDX_MEM_W: u8 = 0x01 | 0x60;
    Instruction { code: LDX_MEM_W, registers: to | CONTEXT << 4, offset, immediate: 0 }
}

fn and(register: u8, mask: i32) -> Instruction {
    const ALU_AND_K: u8 = 0x04 | 0x50;
    Instruction { code: ALU_AND_K, registers: register, offset: 0, immediate: mask }
}

fn set(register: u8, value: i32) -> Instruction {
    const ALU64_MOV_K: u8 = 0x07 | 0xb0;
    Instruction { code: ALU64_MOV_K, registers: register, offset: 0, immediate: value }
}

fn skip_unless(register: u8, value: i32, instructions: i16) -> Instruction {
    const JMP_JNE_K: u8 = 0x05 | 0x50;
    Instruction { code: JMP_JNE_K, registers: register, offset: instructions, immediate: value }
}

fn exit() -> Instruction {
    const JMP_EXIT: u8 = 0x05 | 0x90;
    Instruction { code: JMP_EXIT, registers: 0, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says, by running it.
    fn verdict(kind: u32, major: u32, minor: u32) -> bool {
        const READ: u32 = 2;
        let context = [READ << 16 | kind, major, minor];
        let program = program();
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let to = usize::from(both & 0xf);
            at += 1;
            match code {
                0x61 => registers[to] = u64::from(context[usize::try_from(offset).unwrap() / 4]),
                0x54 => registers[to] &= u64::from(immediate.cast_unsigned()),
                0xb7 => registers[to] = u64::from(immediate.cast_unsigned()),
                0x55 if registers[to] != u64::from(immediate.cast_unsigned()) => {
                    at += usize::try_from(offset).unwrap();
                }
                0x55 => {}
                0x95 => return registers[0] == 1,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    #[test]
    fn allows_what_is_listed_and_nothing_else() {
        const BLOCK: u32 = 1;
        const CHARACTER: u32 = 2;
        for (major, minor) in ALLOWED {
            assert!(verdict(CHARACTER, major, minor.unwrap_or(77)));
            assert!(!verdict(BLOCK, major, minor.unwrap_or(77)));
        }
        for (major, minor) in
            [(1, 1), (1, 2), (1, 4), (1, 11), (5, 3), (8, 0), (10, 200), (10, 232), (254, 0), (0, 0)]
        {
            assert!(!verdict(CHARACTER, major, minor), "{major}:{minor}");
            assert!(!verdict(BLOCK, major, minor), "{major}:{minor}");
        }
    }
}
