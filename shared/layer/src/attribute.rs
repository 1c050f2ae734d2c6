//! Which extended attributes of an image's files are kept.
//!
//! File capabilities and the image's own `user.` attributes are. What would speak to overlayfs is an attack and fails
//! the layer. The rest (labels of a security module the guest does not run, ACLs, other `trusted.` names) means nothing
//! here and is left out, as Docker does on systems without them.

/// `XATTR_NAME_MAX` of Linux.
const MAX_NAME: usize = 255;
/// On one entry: how many, and bytes of all names and values together (`XATTR_SIZE_MAX` of Linux; an inode of an erofs can
/// count four times as much).
pub(crate) const MAX_COUNT: usize = 64;
pub(crate) const MAX_BYTES: usize = 65_536;

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Set it; a file system that cannot fails the layer.
    Keep,
    /// Set it where the file system can: tmpfs knows `user.` since Linux 6.6 only.
    KeepIfPossible,
    Skip,
    Refuse,
}

/// What becomes of the attribute `name`.
pub fn disposition(name: &[u8]) -> Disposition {
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
