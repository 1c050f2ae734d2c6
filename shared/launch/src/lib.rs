//! One description of a pod's VM, from which everything else follows: QEMU's arguments, the kernel command line, and the
//! measurement that a verifier must expect. Also the init data that the owner gives to the guest.
//!
//! Pure: no process is started and nothing is written here; [`image::ImageManifest::load`] and [`disk::DiskFooter::read`]
//! read, to check.
//! [`qemu_args::parse`] is the inverse of [`spec::LaunchSpec::qemu_args`], for whoever measures what really runs.

#![forbid(unsafe_code)]

pub mod disk;
pub mod image;
pub mod init_data;
pub mod measure;
pub mod qemu_args;
pub mod shape;
pub mod spec;
pub mod trust_domain;

pub use disk::{DiskFileError, DiskFooter};
pub use image::{ImageError, ImageManifest};
pub use init_data::{EncodedInitData, InitData, InitDataError, Mode, decode_device, decode_toml, encode};
pub use measure::{MeasuredLaunch, launch_digest};
pub use qemu_args::{Launched, ParseArgsError, parse as parse_qemu_args};
pub use shape::{Accelerator, Cpus, Machine, MemoryMib, Mitigations, PodShape, ShapeError, TeePlatform};
pub use spec::{
    AGENT_VSOCK_PORT, Disk, GUEST_ADDRESS, GUEST_MAC, LaunchSpec, MAX_DISKS, Network, OWNER_TCP_PORT,
    SpecError, Vsock, Wiring, expected_measurement,
};
