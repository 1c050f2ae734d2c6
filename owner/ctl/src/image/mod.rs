//! Container images on this machine: OCI layouts and archives, and how they get into a pod.

mod layout;
mod local;
mod push;
mod source;

pub(crate) use local::LocalImage;
pub(crate) use push::push;
pub(crate) use source::{ImageArgument, ImageSource};
