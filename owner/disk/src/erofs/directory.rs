//! The data of a directory: blocks that each begin with their entries, sorted by name, and end with the names.

use std::collections::BTreeMap;

use postern_model::disk::BLOCK;

use super::format::FileType;
use crate::tree::Entry;

/// Bytes of an entry without its name.
const ENTRY: u64 = 12;

/// Names in order, "." and ".." among them.
fn names(entries: &BTreeMap<Vec<u8>, Entry>) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = entries.keys().map(Vec::as_slice).chain([&b"."[..], b".."]).collect();
    names.sort_unstable();
    names
}

/// The names of each block.
fn blocks<'a>(names: &[&'a [u8]]) -> Vec<Vec<&'a [u8]>> {
    let mut blocks: Vec<Vec<&[u8]>> = Vec::new();
    let mut used = BLOCK;
    for name in names {
        let length = ENTRY + name.len() as u64;
        if used + length > BLOCK {
            blocks.push(Vec::new());
            used = 0;
        }
        used += length;
        if let Some(block) = blocks.last_mut() {
            block.push(name);
        }
    }
    blocks
}

fn used(block: &[&[u8]]) -> u64 {
    block.iter().map(|name| ENTRY + name.len() as u64).sum()
}

/// Bytes of the directory's data: whole blocks but for the last.
pub(super) fn size(entries: &BTreeMap<Vec<u8>, Entry>) -> u64 {
    let blocks = blocks(&names(entries));
    let last = blocks.last().map_or(0, |block| used(block));
    (blocks.len() as u64).saturating_sub(1) * BLOCK + last
}

/// The data itself; `look_up` gives number and type of an inode.
pub(super) fn data(
    entries: &BTreeMap<Vec<u8>, Entry>,
    own: u64,
    parent: u64,
    look_up: impl Fn(usize) -> (u64, FileType),
) -> Vec<u8> {
    let mut data = Vec::new();
    for block in blocks(&names(entries)) {
        data.resize(data.len().next_multiple_of(BLOCK as usize), 0);
        let mut offset = ENTRY * block.len() as u64;
        for name in &block {
            let (number, file_type) = match (*name, entries.get(*name)) {
                (b".", _) => (own, FileType::Directory),
                (_, Some(entry)) => look_up(entry.inode),
                (_, None) => (parent, FileType::Directory),
            };
            data.extend(number.to_le_bytes());
            data.extend(u16::try_from(offset).unwrap_or_default().to_le_bytes());
            data.extend([file_type as u8, 0]);
            offset += name.len() as u64;
        }
        block.iter().for_each(|name| data.extend_from_slice(name));
    }
    data
}
