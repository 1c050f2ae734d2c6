//! Content between a pipe and a file, moved by the kernel: nothing of it passes through the worker.

use std::{
    fs::File,
    io::{self, Read},
};

use rustix::{
    io::Errno,
    pipe::{SpliceFlags, splice},
};

use crate::io::large_pipe;

/// What one step moves. The pipe is locked meanwhile, and whoever is at its other end waits.
const PIECE: usize = 128 * 1024;

/// Moves up to `size` bytes from a file into a pipe, which takes no copy; fewer only at the end of `from`.
pub(super) fn into_pipe(from: &File, to: &File, size: u64) -> io::Result<u64> {
    let mut moved = 0;
    while moved < size {
        match step(from, to, size - moved, PIECE) {
            Ok(0) => break,
            Ok(count) => moved += count,
            // A file system that cannot: by hand.
            Err(Errno::INVAL) if moved == 0 => return io::copy(&mut from.take(size), &mut &*to),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(moved)
}

/// From a pipe into files, by way of a second pipe. Writing to a file copies, and locks the pipe that it copies from for as
/// long: whoever fills the first one would wait for it. From pipe to pipe pages only change hands.
pub(super) struct IntoFiles {
    from: File,
    inlet: File,
    outlet: File,
}

impl IntoFiles {
    pub(super) fn new(from: File) -> io::Result<Self> {
        let (outlet, inlet) = large_pipe()?;
        Ok(Self { from, inlet: inlet.into(), outlet: outlet.into() })
    }

    /// The pipe that everything comes from.
    pub(super) fn source(&self) -> &File {
        &self.from
    }

    /// Moves up to `size` bytes into `to`; fewer only at the end of the pipe.
    pub(super) fn pass_on(&self, to: &File, size: u64) -> io::Result<u64> {
        let mut moved = 0;
        while moved < size {
            let count = step(&self.from, &self.inlet, size - moved, usize::MAX)?;
            if count == 0 {
                break;
            }
            self.empty_into(to, count)?;
            moved += count;
        }
        Ok(moved)
    }

    fn empty_into(&self, to: &File, mut left: u64) -> io::Result<()> {
        while left > 0 {
            match step(&self.outlet, to, left, usize::MAX) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => left -= count,
                // A file system that cannot: by hand.
                Err(Errno::INVAL) => {
                    left -= match io::copy(&mut (&self.outlet).take(left), &mut &*to)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        count => count,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn step(from: &File, to: &File, left: u64, most: usize) -> rustix::io::Result<u64> {
    let wanted = usize::try_from(left).map_or(most, |left| left.min(most));
    loop {
        match splice(from, None, to, None, wanted, SpliceFlags::MOVE) {
            Ok(count) => return Ok(count as u64),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek, Write},
        thread,
    };

    use super::*;

    #[test]
    fn every_byte_goes_to_its_file_and_none_too_many() {
        let (theirs, ours) = large_pipe().unwrap();
        let data: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(40_503) >> 9) as u8).collect();
        let sent = data.clone();
        let writer = thread::spawn(move || {
            let mut pipe = File::from(ours);
            // In pieces that fit nothing.
            sent.chunks(77_777).try_for_each(|piece| pipe.write_all(piece))
        });
        let passage = IntoFiles::new(File::from(theirs)).unwrap();
        let mut at = 0;
        for size in [1, 4095, 70_000, 2_500_000] {
            let mut file = tempfile::tempfile().unwrap();
            assert_eq!(passage.pass_on(&file, size as u64).unwrap(), size as u64);
            file.rewind().unwrap();
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read == data[at..at + size], "{size} bytes from {at}");
            at += size;
        }
        // The rest is still where whoever reads the archive looks for it; then the pipe has an end.
        let mut some = [0; 5];
        passage.source().read_exact(&mut some).unwrap();
        assert_eq!(some, data[at..at + 5]);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(passage.pass_on(&file, 10_000_000).unwrap() as usize, data.len() - at - 5);
        assert_eq!(passage.pass_on(&file, 1).unwrap(), 0);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn what_cannot_be_spliced_is_copied() {
        let (theirs, ours) = large_pipe().unwrap();
        File::from(ours).write_all(&[7; 9000]).unwrap();
        let passage = IntoFiles::new(File::from(theirs)).unwrap();
        // The kernel splices into no file that was opened to append.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::options().append(true).create(true).open(&path).unwrap();
        assert_eq!(passage.pass_on(&file, 9000).unwrap(), 9000);
        assert_eq!(std::fs::read(path).unwrap(), [7; 9000]);
    }

    #[test]
    fn a_file_that_takes_nothing_is_an_error() {
        let (theirs, ours) = large_pipe().unwrap();
        File::from(ours).write_all(&[7; 9000]).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let passage = IntoFiles::new(File::from(theirs)).unwrap();
        assert!(passage.pass_on(&full, 9000).is_err());
    }
}
