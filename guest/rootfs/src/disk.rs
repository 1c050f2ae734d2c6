//! Image disks: a read-only file system on a disk of the host's, every block of which the kernel checks against the
//! owner's root hash (dm-verity) before anybody sees it.
//!
//! Nothing of the host is believed. The serial number only finds the disk; a changed block is an I/O error for whoever
//! reads it, whenever the host changed it.

mod mapper;
mod sys;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use postern_model::{ImageDisk, Sha256, disk::BLOCK};
use ring::digest::{SHA256, digest};
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use self::mapper::Mapping;
use crate::manifest::ManifestError;

const BLOCK_DEVICES: &str = "/sys/block";
/// The kernel's unit of a disk's size.
const SECTOR: u64 = 512;

/// What an owner says of an image on a disk.
#[derive(Debug, Clone)]
pub struct DiskImage {
    pub disk: ImageDisk,
    /// Digest of the image manifest.
    pub manifest_digest: Sha256,
    /// The image configuration, as JSON.
    pub config: Vec<u8>,
}

/// Why an image's disk is not used.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("no disk has the serial number {serial}; start the pod with the image's disk")]
    Absent { serial: String },
    #[error("{first} and {second} both have the serial number {serial}; the host attached one disk twice")]
    Twice { serial: String, first: String, second: String },
    #[error("disk {device} has {found} bytes, {expected} are needed; the host cut it off")]
    Short { device: String, found: u64, expected: u64 },
    #[error("disk {device} cannot be read")]
    Read { device: String, source: io::Error },
    #[error("disk {device} has the root hash {found}, not {expected}; the host changed it")]
    RootHash { device: String, expected: Sha256, found: Sha256 },
    #[error("the kernel does not {step} of disk {device}; it may have no dm-verity")]
    Mapper { device: String, step: &'static str, source: io::Error },
    #[error("the file system of disk {device} is not what its root hash says; the host changed it")]
    Changed { device: String },
    #[error("the file system of disk {device} cannot be mounted; the kernel may have no erofs")]
    Mount { device: String, source: io::Error },
    #[error("the directory for it cannot be made ({0})")]
    Directory(Errno),
    #[error("the disk did not answer within {0} s")]
    Silent(u64),
    #[error("its configuration is not one that can be used")]
    Config(#[from] ManifestError),
    #[error("image cannot be stored")]
    Store(#[from] crate::StoreError),
}

/// A disk whose file system is mounted. Dropping it unmounts.
#[derive(Debug)]
pub(crate) struct Attached {
    target: PathBuf,
    /// After the mount, which uses it.
    _mapping: Mapping,
    pub(crate) bytes: u64,
}

impl Attached {
    /// Finds `disk` among the machine's, has it checked block by block and mounts it at `target`.
    pub(crate) fn mount(disk: &ImageDisk, target: PathBuf) -> Result<Self, AttachError> {
        let device = find(Path::new(BLOCK_DEVICES), disk)?;
        device.check_root(disk)?;
        let name = device.name;
        let mapping = Mapping::verity(&device.number, disk).map_err(|(step, errno)| AttachError::Mapper {
            device: name.clone(),
            step,
            source: errno.into(),
        })?;
        // Nobody but overlayfs uses this mount, and a container's own flags are its overlay's.
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
        match mount(mapping.device(), &target, "erofs", flags, None) {
            Ok(()) => Ok(Self { target, _mapping: mapping, bytes: disk.data_bytes() }),
            Err(Errno::IO) => Err(AttachError::Changed { device: name }),
            Err(errno) => Err(AttachError::Mount { device: name, source: errno.into() }),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Detached: overlays that still use it keep it until they go.
        if let Err(errno) = unmount(&self.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::error!(%errno, "an image disk stays mounted");
        }
    }
}

/// A disk that answers to the serial number.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    /// `vdb`
    name: String,
    /// `254:16`
    number: String,
}

fn find(block_devices: &Path, disk: &ImageDisk) -> Result<Device, AttachError> {
    let serial = disk.serial();
    let mut names = Vec::new();
    for entry in fs::read_dir(block_devices).into_iter().flatten().flatten() {
        let has_it = fs::read_to_string(entry.path().join("serial")).is_ok_and(|text| text.trim() == serial);
        if let (true, Ok(name)) = (has_it, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    let mut names = names.into_iter();
    let name = match (names.next(), names.next()) {
        (None, _) => return Err(AttachError::Absent { serial }),
        (Some(first), Some(second)) => return Err(AttachError::Twice { serial, first, second }),
        (Some(name), None) => name,
    };
    let read = |file: &str| {
        let text = fs::read_to_string(block_devices.join(&name).join(file));
        text.map_err(|source| AttachError::Read { device: name.clone(), source })
    };
    let found = read("size")?.trim().parse::<u64>().unwrap_or_default().saturating_mul(SECTOR);
    let number = read("dev")?.trim().to_owned();
    match disk.verified_bytes() {
        expected if found < expected => Err(AttachError::Short { device: name, found, expected }),
        _ => Ok(Device { name, number }),
    }
}

impl Device {
    /// The kernel would find the same, but only say "I/O error".
    fn check_root(&self, disk: &ImageDisk) -> Result<(), AttachError> {
        let mut block = [0; BLOCK as usize];
        File::open(Path::new("/dev").join(&self.name))
            .and_then(|file| file.read_exact_at(&mut block, disk.data_bytes()))
            .map_err(|source| AttachError::Read { device: self.name.clone(), source })?;
        let mut found = [0; Sha256::LENGTH];
        found.copy_from_slice(digest(&SHA256, &block).as_ref());
        match (disk.root_hash(), Sha256::new(found)) {
            (expected, found) if expected == found => Ok(()),
            (expected, found) => Err(AttachError::RootHash { device: self.name.clone(), expected, found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> ImageDisk {
        ImageDisk::new(Sha256::new([0xab; 32]), 2).unwrap()
    }

    fn machine(disks: &[(&str, &str, u64)]) -> tempfile::TempDir {
        let machine = tempfile::tempdir().unwrap();
        for (name, serial, sectors) in disks {
            let directory = machine.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("serial"), serial).unwrap();
            fs::write(directory.join("size"), format!("{sectors}\n")).unwrap();
            fs::write(directory.join("dev"), "254:16\n").unwrap();
        }
        machine
    }

    #[test]
    fn the_one_disk_with_the_serial_number_is_found() {
        let serial = disk().serial();
        let machine = machine(&[("vda", "initdata", 8), ("vdb", &serial, 24), ("vdc", "other", 24)]);
        fs::create_dir(machine.path().join("dm-0")).unwrap();
        let found = find(machine.path(), &disk()).unwrap();
        assert_eq!(found, Device { name: "vdb".into(), number: "254:16".into() });
    }

    #[test]
    fn none_two_and_a_shorter_one_are_told_apart() {
        let serial = disk().serial();
        let find = |disks: &[(&str, &str, u64)]| find(machine(disks).path(), &disk()).unwrap_err();
        assert!(matches!(find(&[("vda", "initdata", 24)]), AttachError::Absent { .. }));
        let twice = find(&[("vdc", &serial, 24), ("vdb", &serial, 24)]).to_string();
        assert!(twice.starts_with("vdb and vdc both"), "{twice}");
        assert!(matches!(
            find(&[("vdb", &serial, 23)]),
            AttachError::Short { found: 11_776, expected: 12_288, .. }
        ));
        assert!(matches!(find(&[("vdb", &serial, 0)]), AttachError::Short { found: 0, .. }));
    }
}
