//! Which extended attributes of an image's files are kept.
//!
//! File capabilities and the image's own `user.` attributes are. What would speak to overlayfs is an attack and fails
//! the layer. The rest (labels of a security module the guest does not run, ACLs, other `trusted.` names) means nothing
//! here and is left out, as Docker does on systems without them.

/// `XATTR_NAME_MAX` and `XATTR_SIZE_MAX` of Linux.
pub(crate) const MAX_NAME: usize = 255;
pub(crate) const MAX_VALUE: usize = 65_536;
/// On one entry.
pub(crate) const MAX_COUNT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Set it; a file system that cannot fails the layer.
    Keep,
    /// Set it where the file system can: tmpfs knows `user.` since Linux 6.6 only.
    KeepIfPossible,
    Skip,
    Refuse,
}

pub(crate) fn disposition(name: &[u8]) -> Disposition {
    const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
    if OVERLAY.iter().any(|prefix| name.starts_with(prefix)) || name.contains(&0) {
        return Disposition::Refuse;
    }
    if name == b"security.capability" {
        return Disposition::Keep;
    }
    if name.starts_with(b"user.") && name.len() <= MAX_NAME {
        return Disposition::KeepIfPossible;
    }
    Disposition::Skip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_the_images_and_refuses_what_is_overlayfs() {
        for (name, expected) in [
            ("security.capability", Disposition::Keep),
            ("user.note", Disposition::KeepIfPossible),
            ("user.overlay.opaque", Disposition::Refuse),
            ("trusted.overlay.opaque", Disposition::Refuse),
            ("trusted.overlay.redirect", Disposition::Refuse),
            ("trusted.other", Disposition::Skip),
            ("security.selinux", Disposition::Skip),
            ("system.posix_acl_access", Disposition::Skip),
            ("user.a\0b", Disposition::Refuse),
        ] {
            assert_eq!(disposition(name.as_bytes()), expected, "{name}");
        }
    }
}
