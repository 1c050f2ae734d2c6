//! What a specialised kernel may lack, and a container then does without.
//!
//! Looked up, not assumed: where there is anything that a name space separates, the name space is needed.

use std::{fs, path::Path};

/// Whether there are objects that an IPC name space separates, or such name spaces.
pub(crate) fn has_ipc() -> bool {
    Path::new("/proc/self/ns/ipc").exists() || Path::new("/proc/sysvipc").exists() || has_message_queues()
}

/// Whether POSIX message queues can be mounted.
pub(crate) fn has_message_queues() -> bool {
    // Unreadable counts as there: a mount that fails is told, one that is missing is not.
    fs::read_to_string("/proc/filesystems").map_or(true, |list| names(&list, "mqueue"))
}

fn names(list: &str, kind: &str) -> bool {
    list.lines().any(|line| line.split_whitespace().last() == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_list() {
        let list = "nodev\tsysfs\nnodev\tmqueue\n\text4\n";
        assert!(names(list, "mqueue") && names(list, "ext4"));
        assert!(!names(list, "nodev") && !names("nodev\tmqueue2\n", "mqueue"));
    }

    #[test]
    fn this_machine_has_what_its_kernel_has() {
        assert_eq!(has_ipc(), Path::new("/proc/self/ns/ipc").exists() || Path::new("/proc/sysvipc").exists());
    }
}
