//! An image's files while its layers are laid over one another, by the rules of the OCI image specification ("Applying
//! Changesets"): a later layer replaces, its whiteouts hide, and what it does not name stays.

use std::collections::BTreeMap;

use crate::scratch::Extent;

/// Longest file name Linux knows (`NAME_MAX`), and longest path in an image (`PATH_MAX`).
const MAX_NAME: usize = 255;
pub(crate) const MAX_PATH: usize = 4095;
/// Directories above an entry, as a pod's own store bounds them.
const MAX_DEPTH: usize = 200;
/// Names in one image.
const MAX_ENTRIES: usize = 1_000_000;

/// Why an entry cannot be put where its layer wants it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("its path is longer or deeper than is allowed")]
    TooLong,
    #[error("its path contains \"..\" or a NUL byte")]
    Path,
    #[error("it lies below something that is no directory")]
    BelowFile,
    #[error("it is a whiteout of nothing that can be named")]
    Whiteout,
    #[error("it links to {0:?}, which is no file of the image so far")]
    NoTarget(String),
    #[error("it would replace the root directory")]
    Root,
    #[error("it carries the attribute {0:?}, with which an image could forge overlayfs' own marks")]
    Attribute(String),
    #[error("its link target is empty or too long")]
    Target,
    #[error("its owner {0} is no user or group of Linux")]
    Owner(u64),
    #[error("the image has more than {MAX_ENTRIES} files")]
    TooMany,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits, set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// For a directory no entry describes.
    fn implied() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory(BTreeMap<Vec<u8>, Entry>),
    File(Extent),
    Symlink(Vec<u8>),
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: usize,
    /// The layer that put it there; its whiteouts leave it alone.
    layer: usize,
}

/// What a layer says of one path.
#[derive(Debug)]
pub(crate) enum Change {
    Directory(Meta),
    File(Meta, Extent),
    Symlink(Meta, Vec<u8>),
    Fifo(Meta),
    HardLink(Vec<u8>),
}

/// Inodes by number; the root is 0. Those that no name leads to any more are never written.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    entries: usize,
    layer: usize,
}

impl Tree {
    pub(crate) const ROOT: usize = 0;

    pub(crate) fn new() -> Self {
        let root = Inode { meta: Meta::implied(), kind: Kind::Directory(BTreeMap::new()) };
        Self { inodes: vec![root], entries: 0, layer: 0 }
    }

    pub(crate) fn inode(&self, number: usize) -> &Inode {
        &self.inodes[number]
    }

    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Carries out one entry of the present layer.
    pub(crate) fn apply(&mut self, path: &[u8], change: Change) -> Result<(), PlaceError> {
        self.entries += 1;
        // An entry may imply as many directories as its path is deep.
        if self.entries > MAX_ENTRIES || self.inodes.len() > MAX_ENTRIES {
            return Err(PlaceError::TooMany);
        }
        let parts = parts(path)?;
        let Some((name, above)) = parts.split_last() else {
            return match change {
                Change::Directory(meta) => {
                    self.inodes[Self::ROOT].meta = meta;
                    Ok(())
                }
                _ => Err(PlaceError::Root),
            };
        };
        if above.iter().any(|part| part.starts_with(b".wh.")) {
            return Err(PlaceError::Whiteout);
        }
        let parent = self.make_directory(above)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(parent, hidden);
        }
        let inode = match change {
            Change::Directory(meta) => return self.place_directory(parent, name, meta),
            Change::HardLink(target) => self.find_file(&target)?,
            Change::File(meta, extent) => self.add(meta, Kind::File(extent)),
            Change::Symlink(meta, target) if !target.is_empty() && target.len() <= MAX_PATH => {
                self.add(meta, Kind::Symlink(target))
            }
            Change::Symlink(..) => return Err(PlaceError::Target),
            Change::Fifo(meta) => self.add(meta, Kind::Fifo),
        };
        self.insert(parent, name, inode);
        Ok(())
    }

    fn add(&mut self, meta: Meta, kind: Kind) -> usize {
        self.inodes.push(Inode { meta, kind });
        self.inodes.len() - 1
    }

    fn entries_of(&mut self, directory: usize) -> Option<&mut BTreeMap<Vec<u8>, Entry>> {
        match &mut self.inodes[directory].kind {
            Kind::Directory(entries) => Some(entries),
            Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => None,
        }
    }

    fn entry(&self, directory: usize, name: &[u8]) -> Option<Entry> {
        match &self.inodes[directory].kind {
            Kind::Directory(entries) => entries.get(name).copied(),
            Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => None,
        }
    }

    fn is_directory(&self, inode: usize) -> bool {
        matches!(self.inodes[inode].kind, Kind::Directory(_))
    }

    fn insert(&mut self, directory: usize, name: &[u8], inode: usize) {
        let layer = self.layer;
        if let Some(entries) = self.entries_of(directory) {
            entries.insert(name.to_vec(), Entry { inode, layer });
        }
    }

    /// The directory at `path`, made where it is missing. What an earlier layer has in its way gives way, a symbolic link
    /// too: in an overlay of the same layers a directory would hide it.
    fn make_directory(&mut self, path: &[&[u8]]) -> Result<usize, PlaceError> {
        let mut at = Self::ROOT;
        for part in path {
            at = match self.entry(at, part) {
                Some(entry) if self.is_directory(entry.inode) => entry.inode,
                Some(entry) if entry.layer == self.layer => return Err(PlaceError::BelowFile),
                _ => {
                    let made = self.add(Meta::implied(), Kind::Directory(BTreeMap::new()));
                    self.insert(at, part, made);
                    made
                }
            };
        }
        Ok(at)
    }

    fn place_directory(&mut self, parent: usize, name: &[u8], meta: Meta) -> Result<(), PlaceError> {
        let inode = match self.entry(parent, name) {
            Some(entry) if self.is_directory(entry.inode) => {
                self.inodes[entry.inode].meta = meta;
                entry.inode
            }
            _ => self.add(meta, Kind::Directory(BTreeMap::new())),
        };
        self.insert(parent, name, inode);
        Ok(())
    }

    fn find_file(&self, target: &[u8]) -> Result<usize, PlaceError> {
        let missing = || PlaceError::NoTarget(target.escape_ascii().to_string());
        let mut at = Self::ROOT;
        for part in parts(target)? {
            at = self.entry(at, part).ok_or_else(missing)?.inode;
        }
        match self.is_directory(at) {
            true => Err(missing()),
            false => Ok(at),
        }
    }

    fn whiteout(&mut self, parent: usize, hidden: &[u8]) -> Result<(), PlaceError> {
        match hidden {
            b".wh..opq" => {
                self.hide_below(parent);
                Ok(())
            }
            // Bookkeeping of AUFS, for which this format was made.
            hidden if hidden.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(PlaceError::Whiteout),
            hidden => {
                if let Some(entry) = self.entry(parent, hidden)
                    && !self.hide(entry)
                    && let Some(entries) = self.entries_of(parent)
                {
                    entries.remove(hidden);
                }
                Ok(())
            }
        }
    }

    /// Takes away what earlier layers have at and below `entry`; whether something of this layer keeps it there.
    fn hide(&mut self, entry: Entry) -> bool {
        let below = self.is_directory(entry.inode) && self.hide_below(entry.inode);
        below || entry.layer == self.layer
    }

    fn hide_below(&mut self, directory: usize) -> bool {
        let entries = self.entries_of(directory).map(std::mem::take).unwrap_or_default();
        let kept: BTreeMap<_, _> = entries.into_iter().filter(|(_, entry)| self.hide(*entry)).collect();
        let any = !kept.is_empty();
        if let Some(entries) = self.entries_of(directory) {
            *entries = kept;
        }
        any
    }
}

/// An absolute path is taken as one below the root, as every unpacker of images does.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, PlaceError> {
    let parts: Vec<_> = path.split(|&c| c == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if path.contains(&0) || parts.contains(&&b".."[..]) {
        return Err(PlaceError::Path);
    }
    match path.len() > MAX_PATH || parts.len() > MAX_DEPTH || parts.iter().any(|part| part.len() > MAX_NAME) {
        true => Err(PlaceError::TooLong),
        false => Ok(parts),
    }
}

#[cfg(test)]
mod tests;
