//! The whole system in a real VM, as its users have it: the programs that ship, the image that boots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod image_disk;
mod init_data;
mod kernel_options;
mod limits;
mod lying_host;
mod main_story;
mod mitigations;
mod pool;
mod surface;
