//! Deleting a directory tree that somebody hostile may have written.
//!
//! A container can nest directories deeper than any path or stack reaches, so depth costs neither: what lies deep is
//! moved to the top first. No symbolic link is followed and no mount is entered.

use std::{
    cell::Cell,
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, unlinkat},
    io::{Errno, Result},
};

/// Directories open at once while going down.
const MAX_DEPTH: usize = 16;

/// Deletes `name` in `parent`, whatever it is. What is not there is no error.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let root = open_directory(parent, name)?;
    Removal { root: root.as_fd(), moved: Cell::new(0) }.empty(root.as_fd(), 0)?;
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

struct Removal<'a> {
    root: BorrowedFd<'a>,
    moved: Cell<u64>,
}

impl Removal<'_> {
    fn empty(&self, directory: BorrowedFd<'_>, depth: usize) -> Result<()> {
        // Entries removed or moved here while reading may hide others: read again until nothing is left.
        loop {
            let mut removed = false;
            for entry in Dir::read_from(directory)? {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    removed = true;
                    self.remove(directory, name, entry.file_type(), depth)?;
                }
            }
            if !removed {
                return Ok(());
            }
        }
    }

    fn remove(&self, directory: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) -> Result<()> {
        if !matches!(kind, FileType::Directory | FileType::Unknown) {
            return unlinkat(directory, name, AtFlags::empty());
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) => return Ok(()),
            Err(Errno::NOTDIR) => return unlinkat(directory, name, AtFlags::empty()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth == MAX_DEPTH {
            return self.move_up(directory, name);
        }
        let inner = open_directory(directory, name)?;
        self.empty(inner.as_fd(), depth + 1)?;
        unlinkat(directory, name, AtFlags::REMOVEDIR)
    }

    /// Moves a directory to the top of the tree, under a name that is free there. Needs no space, so it works on a
    /// full file system too.
    fn move_up(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            let number = self.moved.replace(self.moved.get() + 1);
            match renameat(directory, name, self.root, format!(".postern-deep-{number}")) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                done => return done,
            }
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::File, os::unix::fs::symlink};

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn deletes_trees_deeper_than_any_path() {
        let outside = tempfile::tempdir().unwrap();
        let parent = File::open(outside.path()).unwrap();
        fs::create_dir(outside.path().join("tree")).unwrap();
        let mut at = OwnedFd::from(File::open(outside.path().join("tree")).unwrap());
        for _ in 0..5000 {
            mkdirat(&at, "a-name-of-some-length", Mode::RWXU).unwrap();
            mkdirat(&at, "beside", Mode::RWXU).unwrap();
            at = open_directory(at.as_fd(), c"a-name-of-some-length").unwrap();
        }
        remove_tree(parent.as_fd(), c"tree").unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn follows_no_link_and_does_not_mind_its_own_names() {
        let outside = tempfile::tempdir().unwrap();
        let tree = outside.path().join("tree");
        fs::create_dir_all(tree.join(".postern-deep-0/x")).unwrap();
        fs::create_dir_all(tree.join("deep/".repeat(40))).unwrap();
        fs::create_dir(outside.path().join("kept")).unwrap();
        fs::write(outside.path().join("kept/file"), "kept").unwrap();
        symlink(outside.path().join("kept"), tree.join("link")).unwrap();
        remove_tree(File::open(outside.path()).unwrap().as_fd(), c"tree").unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read(outside.path().join("kept/file")).unwrap(), b"kept");
        remove_tree(File::open(outside.path()).unwrap().as_fd(), c"tree").unwrap();
    }
}
