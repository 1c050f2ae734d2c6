//! One overlay mount.
//!
//! `mount(2)` takes a page of options, and 128 layers named by digest do not fit into one; `lowerdir+` of the newer
//! mount calls came with Linux 6.7. So the layers are named by descriptor, through `/proc/self/fd`, which is short and
//! works on every kernel.

use std::{
    ffi::CString,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::{Errno, Result},
    mount::{MountFlags, mount},
};

/// What `mount(2)` copies of its options, with the closing NUL.
const MAX_OPTIONS: usize = 4096;

/// Mounts `layers`, lowest first, below `upper` at `target`. `work` is a sibling of `upper`.
pub(crate) fn mount_overlay(
    layers: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    target: &Path,
) -> Result<()> {
    let options = options(layers, upper, work);
    if options.len() >= MAX_OPTIONS {
        return Err(Errno::TOOBIG);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())
}

fn options(layers: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> String {
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower: Vec<_> = layers.iter().rev().map(path).collect();
    // The features an image could have prepared something for are off whatever the kernel's defaults are.
    format!(
        "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=nofollow,xino=off",
        lower.join(":"),
        path(upper),
        path(work)
    )
}
