//! Where the stored bytes of a sparse file belong.
//!
//! A plain file is one segment. A sparse one is a list of (offset, length), in order and apart; what lies between are
//! holes, which cost nothing on disk and are bounded by the file's size alone.

use std::io::{self, Read};

use tar::GnuSparseHeader;

use crate::{
    pax::decimal,
    records::{Chunk, number},
};

/// Segments of one file.
const MAX_SEGMENTS: usize = 65_536;
const BLOCK: usize = 512;

/// Why a sparse file's map was refused.
#[derive(Debug, thiserror::Error)]
pub enum SparseError {
    #[error("it has more than {MAX_SEGMENTS} segments")]
    TooMany,
    #[error("it holds something that is no number")]
    Number,
    #[error("its segments overlap or are out of order")]
    Order,
    #[error("a segment lies beyond the end of the file")]
    Beyond,
    #[error("its segments hold {mapped} bytes and the archive {stored}")]
    Length { mapped: u64, stored: u64 },
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// The part of a file still to come.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Offset and length, last one first.
    rest: Vec<(u64, u64)>,
    position: u64,
    size: u64,
}

impl Segments {
    pub(crate) fn empty() -> Self {
        Self::plain(0)
    }

    pub(crate) fn plain(size: u64) -> Self {
        Self { rest: vec![(0, size)], position: 0, size }
    }

    pub(crate) fn new(mut map: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self, SparseError> {
        let mut end = 0;
        let mut mapped = 0;
        for &(offset, length) in &map {
            if offset < end {
                return Err(SparseError::Order);
            }
            end = offset.checked_add(length).filter(|&end| end <= size).ok_or(SparseError::Beyond)?;
            mapped += length;
        }
        if mapped != stored {
            return Err(SparseError::Length { mapped, stored });
        }
        map.reverse();
        Ok(Self { rest: map, position: 0, size })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What comes next; of data at most `room` bytes. Data stays next until it is [`consumed`](Self::consumed).
    pub(crate) fn next(&mut self, room: usize) -> Chunk {
        while let Some(&(offset, length)) = self.rest.last() {
            if self.position < offset {
                let hole = offset - self.position;
                self.position = offset;
                return Chunk::Hole(hole);
            }
            let left = offset + length - self.position;
            if left > 0 {
                return Chunk::Data(usize::try_from(left).map_or(room, |left| left.min(room)));
            }
            self.rest.pop();
        }
        match self.size - self.position {
            0 => Chunk::End,
            hole => {
                self.position = self.size;
                Chunk::Hole(hole)
            }
        }
    }

    pub(crate) fn consumed(&mut self, bytes: u64) {
        self.position += bytes;
    }

    /// The map of a header of the old GNU format; an empty slot ends it.
    pub(crate) fn push_gnu(map: &mut Vec<(u64, u64)>, slots: &[GnuSparseHeader]) -> Result<(), SparseError> {
        for slot in slots {
            if slot.offset[0] == 0 || slot.numbytes[0] == 0 {
                break;
            }
            let field = |bytes: &[u8]| number(bytes).and_then(|value| u64::try_from(value).ok());
            let (Some(offset), Some(length)) = (field(&slot.offset), field(&slot.numbytes)) else {
                return Err(SparseError::Number);
            };
            push(map, offset, length)?;
        }
        Ok(())
    }

    /// `offset,length,offset,length...`: version 0.1 of the pax format.
    pub(crate) fn parse_map(text: &[u8]) -> Result<Vec<(u64, u64)>, SparseError> {
        let mut map = Vec::new();
        let mut numbers = text.split(|&c| c == b',');
        while let Some(offset) = numbers.next() {
            let (offset, length) = (decimal(offset), numbers.next().and_then(decimal));
            let (Some(offset), Some(length)) = (offset, length) else {
                return Err(SparseError::Number);
            };
            push(&mut map, offset, length)?;
        }
        Ok(map)
    }

    /// Version 1.0 of the pax format: before the data a count and the numbers, a line each, padded to whole blocks.
    /// Takes what it reads off `stored`.
    pub(crate) fn read_map(reader: &mut impl Read, stored: &mut u64) -> Result<Vec<(u64, u64)>, SparseError> {
        let mut lines = Lines { reader, stored, block: [0; BLOCK], at: BLOCK };
        let count = lines.number()?;
        if count > MAX_SEGMENTS as u64 {
            return Err(SparseError::TooMany);
        }
        let mut map = Vec::new();
        for _ in 0..count {
            let (offset, length) = (lines.number()?, lines.number()?);
            push(&mut map, offset, length)?;
        }
        Ok(map)
    }
}

fn push(map: &mut Vec<(u64, u64)>, offset: u64, length: u64) -> Result<(), SparseError> {
    if map.len() == MAX_SEGMENTS {
        return Err(SparseError::TooMany);
    }
    map.push((offset, length));
    Ok(())
}

struct Lines<'a, R> {
    reader: &'a mut R,
    stored: &'a mut u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, SparseError> {
        let mut digits = [0; 20];
        for length in 0..=digits.len() {
            let byte = self.byte()?;
            match digits.get_mut(length) {
                _ if byte == b'\n' => return decimal(&digits[..length]).ok_or(SparseError::Number),
                Some(digit) => *digit = byte,
                None => break,
            }
        }
        Err(SparseError::Number)
    }

    fn byte(&mut self) -> Result<u8, SparseError> {
        if self.at == BLOCK {
            *self.stored = self.stored.checked_sub(BLOCK as u64).ok_or(SparseError::Number)?;
            self.reader.read_exact(&mut self.block).map_err(SparseError::Read)?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}
