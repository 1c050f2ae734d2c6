//! Content between a pipe and a file, moved by the kernel: nothing of it passes through the worker.

use std::{
    fs::File,
    io::{self, Read},
};

use rustix::{
    io::Errno,
    pipe::{SpliceFlags, splice},
};

/// What one step moves. The pipe is locked meanwhile, and whoever is at its other end waits.
const PIECE: usize = 128 * 1024;

/// Moves up to `size` bytes; fewer only at the end of `from`. One of the two is a pipe.
pub(super) fn pass_on(from: &File, to: &File, size: u64) -> io::Result<u64> {
    let mut moved = 0;
    while moved < size {
        let wanted = usize::try_from(size - moved).map_or(PIECE, |left| left.min(PIECE));
        match splice(from, None, to, None, wanted, SpliceFlags::MOVE) {
            Ok(0) => break,
            Ok(count) => moved += count as u64,
            Err(Errno::INTR) => {}
            // A file system that cannot: by hand.
            Err(Errno::INVAL) if moved == 0 => return io::copy(&mut from.take(size), &mut &*to),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(moved)
}
