//! The file of an image disk, as the owner packs it and the host lends it to any number of pods.
//!
//! ```text
//! file system (erofs) | dm-verity tree | manifest (JSON), padded | footer, one block
//! ```
//! The guest reads the first two through dm-verity and is told everything else by its owner. The footer tells the host
//! what serial number to plug it in with, and the owner where the manifest is.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use postern_model::{
    Sha256,
    disk::{BLOCK, BlockCountError, ImageDisk},
};

/// First bytes of the footer.
const MAGIC: &[u8; 12] = b"postern-disk";
const FORMAT: u32 = 1;
/// An image configuration is at most so large in a pod; the manifest holds one.
pub const MAX_MANIFEST: u64 = 8 << 20;
const FOOTER: usize = BLOCK as usize;

/// A file that is no image disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskFileError {
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    #[error("it is no image disk")]
    NotADisk,
    #[error("its format is {0}, which this version does not know")]
    Format(u32),
    #[error("its footer is not valid")]
    Blocks(#[from] BlockCountError),
    #[error("it has {found} bytes, not the {expected} that its footer says; it was cut off or added to")]
    Size { found: u64, expected: u64 },
    #[error("its manifest has {0} bytes; at most {MAX_MANIFEST} are read")]
    ManifestSize(u64),
}

/// The last block of an image disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFooter {
    pub disk: ImageDisk,
    pub manifest_bytes: u64,
    pub manifest_digest: Sha256,
}

impl DiskFooter {
    /// Reads the footer and compares the file's size with it. The rest is not read.
    pub fn read(file: &mut File) -> Result<Self, DiskFileError> {
        let size = file.seek(SeekFrom::End(0)).map_err(DiskFileError::Read)?;
        let start = size.checked_sub(BLOCK).ok_or(DiskFileError::NotADisk)?;
        file.seek(SeekFrom::Start(start)).map_err(DiskFileError::Read)?;
        let mut block = [0; FOOTER];
        file.read_exact(&mut block).map_err(DiskFileError::Read)?;
        let footer = Self::parse(&block)?;
        match footer.file_bytes() {
            expected if expected == size => Ok(footer),
            expected => Err(DiskFileError::Size { found: size, expected }),
        }
    }

    pub fn manifest_offset(&self) -> u64 {
        self.disk.verified_bytes()
    }

    fn file_bytes(&self) -> u64 {
        self.manifest_offset() + self.manifest_bytes.next_multiple_of(BLOCK) + BLOCK
    }

    fn parse(block: &[u8; FOOTER]) -> Result<Self, DiskFileError> {
        let mut fields = Fields(block);
        if fields.take() != *MAGIC {
            return Err(DiskFileError::NotADisk);
        }
        let format = u32::from_le_bytes(fields.take());
        if format != FORMAT {
            return Err(DiskFileError::Format(format));
        }
        let data_blocks = u64::from_le_bytes(fields.take());
        let manifest_bytes = u64::from_le_bytes(fields.take());
        if manifest_bytes > MAX_MANIFEST {
            return Err(DiskFileError::ManifestSize(manifest_bytes));
        }
        let disk = ImageDisk::new(Sha256::new(fields.take()), data_blocks)?;
        Ok(Self { disk, manifest_bytes, manifest_digest: Sha256::new(fields.take()) })
    }

    pub fn to_block(&self) -> Vec<u8> {
        let mut block = [
            MAGIC.as_slice(),
            &FORMAT.to_le_bytes(),
            &self.disk.data_blocks().to_le_bytes(),
            &self.manifest_bytes.to_le_bytes(),
            self.disk.root_hash().as_bytes(),
            self.manifest_digest.as_bytes(),
        ]
        .concat();
        block.resize(FOOTER, 0);
        block
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; zeros behind the end, which the fields of a footer never reach.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn footer() -> DiskFooter {
        DiskFooter {
            disk: ImageDisk::new(Sha256::new([7; 32]), 3).unwrap(),
            manifest_bytes: 10,
            manifest_digest: Sha256::new([9; 32]),
        }
    }

    fn read(bytes: &[u8]) -> Result<DiskFooter, DiskFileError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        DiskFooter::read(&mut file)
    }

    #[test]
    fn a_footer_survives() {
        let file = [vec![1; 5 * 4096], footer().to_block()].concat();
        assert_eq!(read(&file).unwrap(), footer());
    }

    #[test]
    fn other_files_are_told_apart() {
        assert!(matches!(read(b""), Err(DiskFileError::NotADisk)));
        assert!(matches!(read(&[0; 8192]), Err(DiskFileError::NotADisk)));
        assert!(matches!(
            read(&footer().to_block()),
            Err(DiskFileError::Size { found: 4096, expected: 24_576 })
        ));
        let with = |at: usize, byte: u8| {
            let mut block = footer().to_block();
            block[at] = byte;
            read(&block)
        };
        assert!(matches!(with(12, 2), Err(DiskFileError::Format(2))));
        assert!(matches!(with(20, 1), Err(DiskFileError::Blocks(_))));
        assert!(matches!(with(28, 1), Err(DiskFileError::ManifestSize(_))));
    }
}
