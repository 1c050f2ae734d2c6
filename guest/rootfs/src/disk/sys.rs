//! The device mapper's ioctls: the one unsafe call of this crate, and the structure it passes.
#![allow(unsafe_code)]

use std::fs::File;

use rustix::{
    io::Result,
    ioctl::{Opcode, Updater, ioctl},
};

/// `struct dm_ioctl` of interface version 4.
const HEADER: usize = 312;
const VERSION: u32 = 4;
const NAME: usize = 128;
/// A target's specification, before its parameters.
const TARGET: usize = 40;
const PARAMETERS: usize = 512;

/// `struct dm_ioctl` with room for one target behind it.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; NAME],
    uuid: [u8; 129],
    data: [u8; 7],
    target: [u8; TARGET + PARAMETERS],
}

const _: () = assert!(size_of::<Request>() == HEADER + TARGET + PARAMETERS);

impl Request {
    /// About the device of this name, which is short and ours.
    pub(super) fn new(name: &str, flags: u32) -> Self {
        let mut request = Self {
            version: [VERSION, 0, 0],
            data_size: size_of::<Self>() as u32,
            data_start: HEADER as u32,
            target_count: 0,
            open_count: 0,
            flags,
            event_number: 0,
            padding: 0,
            device: 0,
            name: [0; NAME],
            uuid: [0; 129],
            data: [0; 7],
            target: [0; TARGET + PARAMETERS],
        };
        put(&mut request.name, name.as_bytes());
        request
    }

    /// One target over `sectors`.
    pub(super) fn set_target(&mut self, sectors: u64, kind: &str, parameters: &str) {
        self.target_count = 1;
        // struct dm_target_spec: first sector, length, status, offset of the next, type.
        put(&mut self.target[8..16], &sectors.to_le_bytes());
        put(&mut self.target[24..TARGET], kind.as_bytes());
        put(&mut self.target[TARGET..], parameters.as_bytes());
    }

    /// Of the device the kernel made (its `huge_encode_dev`).
    pub(super) fn minor(&self) -> u64 {
        (self.device & 0xff) | ((self.device >> 12) & 0xf_ff00)
    }
}

/// Copies; every field is longer than what is put into it.
fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// What is asked of the device mapper.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Create,
    Remove,
    Resume,
    Load,
}

/// `_IOWR(0xfd, number, struct dm_ioctl)`.
const fn opcode(number: Opcode) -> Opcode {
    (3 << 30) | ((HEADER as Opcode) << 16) | (0xfd << 8) | number
}

/// Asks `control`, which is /dev/mapper/control; the answer is in the request.
pub(super) fn ask(control: &File, verb: Verb, request: &mut Request) -> Result<()> {
    // SAFETY: each opcode is one of the device mapper's that read and write a `struct dm_ioctl` and, behind it, not more
    // than `data_size` bytes in all, which is the size of `Request`. Every bit pattern is a valid `Request`.
    unsafe {
        match verb {
            Verb::Create => ioctl(control, Updater::<{ opcode(3) }, Request>::new(request)),
            Verb::Remove => ioctl(control, Updater::<{ opcode(4) }, Request>::new(request)),
            Verb::Resume => ioctl(control, Updater::<{ opcode(6) }, Request>::new(request)),
            Verb::Load => ioctl(control, Updater::<{ opcode(9) }, Request>::new(request)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_the_kernels() {
        // DM_DEV_CREATE and DM_TABLE_LOAD, as strace shows them.
        assert_eq!((opcode(3), opcode(9)), (0xc138_fd03, 0xc138_fd09));
    }

    #[test]
    fn a_target_lies_where_the_kernel_looks() {
        let mut request = Request::new("name", 0);
        request.set_target(16, "verity", "1 2");
        assert_eq!(request.target[8], 16);
        assert_eq!(&request.target[24..31], b"verity\0");
        assert_eq!(&request.target[40..44], b"1 2\0");
        assert_eq!(&request.name[..5], b"name\0");
    }
}
