//! Container images on this machine: OCI layouts, archives and disks, and how they get into a pod.

mod archive;
mod docker;
mod layout;
mod local;
mod pack;
mod push;
mod source;

pub(crate) use local::LocalImage;
pub(crate) use pack::{Stop, image_disk, pack};
pub(crate) use push::{push, push_disk};
pub(crate) use source::{ImageArgument, ImageSource, SourceError};
