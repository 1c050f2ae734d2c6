//! OCI images to root file systems, inside the guest.
//!
//! A [`Store`] takes images from an archive ([`Store::import`]) or a registry ([`Store::pull`]), unpacks their layers
//! while they stream in, and mounts them for containers ([`Store::prepare`]). Or the image is on a disk of the host's
//! ([`Store::attach`]). Everything that comes in is checked against digests and [`Limits`] before it counts.

#![deny(unsafe_code)]

mod budget;
mod disk;
pub mod image;
mod layer;
pub mod limits;
mod manifest;
pub mod progress;
mod registry;
mod remove;
mod store;
mod stream;
mod unpack;

pub use budget::NoSpace;
pub use disk::{AttachError, DiskImage};
pub use image::Image;
pub use layer::LayerError;
pub use limits::Limits;
pub use manifest::ManifestError;
pub use postern_layer::{FormatError, PaxError, SparseError};
pub use progress::{Progress, ProgressSender};
pub use registry::{Auth, AuthError, RequestError, Transport};
pub use store::{
    ArchiveError, ImportError, IndexError, OpenError, PrepareError, PullError, RemoveError, ResolveError,
    Rootfs, RootfsError, SpoolError, Store, StoreError,
};
#[doc(hidden)]
pub use unpack::fuzz_layer;
pub use unpack::{EntryProblem, PathError, PlaceError, UnpackError};
