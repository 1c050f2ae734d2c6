//! OCI images to root file systems, inside the guest.
//!
//! A [`Store`] takes images from an archive ([`Store::import`]) or a registry ([`Store::pull`]), unpacks their layers
//! while they stream in, and mounts them for containers ([`Store::prepare`]). Everything that comes in is checked
//! against digests and [`Limits`] before it counts.

pub mod image;
pub mod limits;
pub mod progress;
mod registry;
mod store;

pub use image::Image;
pub use limits::Limits;
pub use progress::{Progress, ProgressSender};
pub use registry::{Auth, Transport};
pub use store::{ImportError, OpenError, PrepareError, PullError, RemoveError, ResolveError, Rootfs, RootfsError, Store};
