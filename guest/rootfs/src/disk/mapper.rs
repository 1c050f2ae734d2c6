//! One dm-verity device of the kernel's device mapper (Linux, include/uapi/linux/dm-ioctl.h and
//! Documentation/admin-guide/device-mapper/verity.rst).

use std::{
    fs::File,
    sync::atomic::{AtomicU32, Ordering},
};

use postern_model::{ImageDisk, disk::BLOCK};
use rustix::io::Errno;

use super::sys::{self, Request, Verb};

const CONTROL: &str = "/dev/mapper/control";
/// `DM_READONLY_FLAG` and `DM_DEFERRED_REMOVE`.
const READ_ONLY: u32 = 1 << 0;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// A mapped device. Dropping it removes it, at once or when its last user closes it.
#[derive(Debug)]
pub(super) struct Mapping {
    control: File,
    name: String,
    device: String,
}

impl Mapping {
    /// Data and tree on the same disk, which has `number` (major:minor). What failed is named by its step.
    pub(super) fn verity(number: &str, disk: &ImageDisk) -> Result<Self, (&'static str, Errno)> {
        // Names of removed devices stay taken while they are in use.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("postern-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let control = File::options().read(true).write(true).open(CONTROL);
        let control = control.map_err(|error| ("take a checked view", errno(error)))?;
        let mut request = Request::new(&name, READ_ONLY);
        sys::ask(&control, Verb::Create, &mut request).map_err(|errno| ("make a checked view", errno))?;
        // From here on dropping it takes the device away again.
        let mapping = Self { control, device: format!("/dev/dm-{}", request.minor()), name };
        let mut load = Request::new(&mapping.name, READ_ONLY);
        load.set_target(disk.data_bytes() / super::SECTOR, "verity", &table(number, disk));
        sys::ask(&mapping.control, Verb::Load, &mut load).map_err(|errno| ("check the blocks", errno))?;
        let mut resume = Request::new(&mapping.name, READ_ONLY);
        sys::ask(&mapping.control, Verb::Resume, &mut resume).map_err(|errno| ("open the view", errno))?;
        Ok(mapping)
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut request = Request::new(&self.name, DEFERRED_REMOVE);
        if let Err(errno) = sys::ask(&self.control, Verb::Remove, &mut request) {
            tracing::error!(%errno, "the view of an image disk stays behind");
        }
    }
}

/// Without options: every block is checked whenever it is read from the disk, and a wrong one is an I/O error.
fn table(number: &str, disk: &ImageDisk) -> String {
    let blocks = disk.data_blocks();
    let root = disk.root_hash().to_hex();
    format!("1 {number} {number} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {root} -")
}

#[cfg(test)]
mod tests {
    use postern_model::Sha256;

    use super::*;

    #[test]
    fn the_table_names_disk_blocks_and_root() {
        let disk = ImageDisk::new(Sha256::new([0xab; 32]), 300).unwrap();
        let expected = format!("1 254:16 254:16 4096 4096 300 300 sha256 {} -", "ab".repeat(32));
        assert_eq!(table("254:16", &disk), expected);
    }
}
