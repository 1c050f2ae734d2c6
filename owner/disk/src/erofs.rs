//! Writes a tree as an erofs (Linux, fs/erofs/erofs_fs.h): uncompressed, blocks of 4096 bytes, small ends of files beside
//! their inodes. What Linux 5.4 and everything after it reads.
//!
//! ```text
//! 1024 zeros | superblock | inodes, each with its attributes and the end of its data | whole blocks of data
//! ```
//! Inodes are written in the order of a walk by name, so the bytes follow from the tree alone. Two passes: [`Layout`] gives
//! every inode its place, then everything is written front to back.

mod directory;
mod format;

use std::io::{self, Write};

use postern_model::disk::BLOCK;

use self::format::{FileType, Placement, Superblock};
use crate::{
    scratch::Stored,
    tree::{Inode, Kind, Tree},
};

/// Why an image's files do not fit into one file system.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    #[error("it cannot be written")]
    Write(#[from] io::Error),
    #[error("the image has more than the 16 TiB that a file system takes")]
    TooLarge,
}

/// Writes the file system, at least two blocks, and returns how many.
pub(crate) fn write(tree: &Tree, files: &Stored, out: impl Write) -> Result<u64, ErofsError> {
    let layout = Layout::of(tree)?;
    let mut out = Counted { inner: out, at: 0 };
    out.pad_to(format::SUPERBLOCK)?;
    let root = layout.placement(Tree::ROOT);
    out.write_all(
        &Superblock { root: root.number(), inodes: layout.order.len() as u64, blocks: layout.blocks }
            .to_bytes(),
    )?;
    for &inode in &layout.order {
        layout.write_inode(tree, inode, files, &mut out)?;
    }
    for &inode in &layout.order {
        layout.write_blocks(tree, inode, files, &mut out)?;
    }
    out.pad_to(u64::from(layout.blocks) * BLOCK)?;
    Ok(layout.blocks.into())
}

/// Where everything goes.
struct Layout {
    /// Inodes as they are written, parents before children.
    order: Vec<usize>,
    /// By inode; those nobody reaches have none.
    placements: Vec<Option<Placement>>,
    blocks: u32,
}

impl Layout {
    fn of(tree: &Tree) -> Result<Self, ErofsError> {
        let mut layout = Self { order: Vec::new(), placements: Vec::new(), blocks: 0 };
        layout.visit(tree, Tree::ROOT, Tree::ROOT);
        let mut at = format::SUPERBLOCK + format::SUPERBLOCK_BYTES;
        for &inode in &layout.order {
            if let Some(placement) = &mut layout.placements[inode] {
                at = placement.place(at);
            }
        }
        let mut block = at.div_ceil(BLOCK);
        for &inode in &layout.order {
            if let Some(placement) = &mut layout.placements[inode] {
                placement.first_block = u32::try_from(block).map_err(|_| ErofsError::TooLarge)?;
                block += placement.whole_blocks();
            }
        }
        layout.blocks = u32::try_from(block.max(2)).map_err(|_| ErofsError::TooLarge)?;
        Ok(layout)
    }

    /// Directories are at most as deep as paths are allowed to be, so the recursion is bounded.
    fn visit(&mut self, tree: &Tree, number: usize, parent: usize) {
        if self.placements.len() <= number {
            self.placements.resize(number + 1, None);
        }
        if let Some(known) = &mut self.placements[number] {
            known.links += 1;
            return;
        }
        let inode = tree.inode(number);
        let size = match &inode.kind {
            Kind::Directory(entries) => directory::size(entries),
            Kind::File(extent) => extent.size,
            Kind::Symlink(target) => target.len() as u64,
            Kind::Fifo => 0,
        };
        self.order.push(number);
        let ordinal = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        self.placements[number] = Some(Placement::new(ordinal, parent, size, &inode.meta.attributes));
        let Kind::Directory(entries) = &inode.kind else { return };
        let mut directories = 0;
        for entry in entries.values() {
            directories += u32::from(matches!(tree.inode(entry.inode).kind, Kind::Directory(_)));
            self.visit(tree, entry.inode, number);
        }
        if let Some(placement) = &mut self.placements[number] {
            // Its own "." and the ".." of those in it.
            placement.links += 1 + directories;
        }
    }

    /// Every inode that is asked for was visited.
    fn placement(&self, inode: usize) -> &Placement {
        static NOWHERE: Placement = Placement::NOWHERE;
        self.placements.get(inode).and_then(Option::as_ref).unwrap_or(&NOWHERE)
    }

    fn write_inode<W: Write>(
        &self,
        tree: &Tree,
        number: usize,
        files: &Stored,
        out: &mut Counted<W>,
    ) -> io::Result<()> {
        let (inode, placement) = (tree.inode(number), self.placement(number));
        out.pad_to(placement.at)?;
        out.write_all(&placement.inode(inode, file_type(inode)))?;
        out.write_all(&format::attributes(&inode.meta.attributes))?;
        let tail = placement.inline_bytes();
        if tail == 0 {
            return Ok(());
        }
        let from = placement.size - tail;
        match &inode.kind {
            Kind::File(extent) => {
                // Less than a block.
                let mut end = vec![0; usize::try_from(tail).unwrap_or_default()];
                files.read(*extent, from, &mut end)?;
                out.write_all(&end)
            }
            _ => out.write_all(&self.small_data(tree, number)[usize::try_from(from).unwrap_or_default()..]),
        }
    }

    fn write_blocks<W: Write>(
        &self,
        tree: &Tree,
        number: usize,
        files: &Stored,
        out: &mut Counted<W>,
    ) -> io::Result<()> {
        let placement = self.placement(number);
        if placement.whole_blocks() == 0 {
            return Ok(());
        }
        out.pad_to(u64::from(placement.first_block) * BLOCK)?;
        let length = placement.size - placement.inline_bytes();
        match &tree.inode(number).kind {
            Kind::File(extent) => files.copy(*extent, length, out),
            _ => out.write_all(&self.small_data(tree, number)[..usize::try_from(length).unwrap_or_default()]),
        }
    }

    /// The data of what is no regular file.
    fn small_data(&self, tree: &Tree, number: usize) -> Vec<u8> {
        match &tree.inode(number).kind {
            Kind::Directory(entries) => {
                let own = self.placement(number);
                let parent = self.placement(own.parent).number();
                directory::data(entries, own.number(), parent, |inode| {
                    (self.placement(inode).number(), file_type(tree.inode(inode)))
                })
            }
            Kind::Symlink(target) => target.clone(),
            Kind::File(_) | Kind::Fifo => Vec::new(),
        }
    }
}

fn file_type(inode: &Inode) -> FileType {
    match inode.kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File(_) => FileType::File,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
    }
}

/// A writer that knows where it is.
struct Counted<W> {
    inner: W,
    at: u64,
}

impl<W: Write> Counted<W> {
    /// Zeros up to `position`, which is not behind what was written: places are given out in order.
    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        debug_assert!(self.at <= position, "{} is behind {position}", self.at);
        io::copy(&mut io::Read::take(io::repeat(0), position.saturating_sub(self.at)), self).map(|_| ())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
