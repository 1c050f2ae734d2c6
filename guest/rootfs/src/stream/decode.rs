//! Takes a stream out of its compression, told by its first bytes.
//!
//! What a manifest calls a layer is not relied on: archives exist that say gzip of plain tar. The digests decide what
//! is right, the first bytes how to read it.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const BUFFER: usize = 64 << 10;
/// Memory a zstd stream may ask for, as a power of two: 32 MiB, what the highest level in common use needs.
const ZSTD_WINDOW_LOG: u32 = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable one before it (RFC 8878, sections 3.1.1 and 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

type Source<R> = Chain<Cursor<Vec<u8>>, BufReader<R>>;

pub(crate) enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(zstd::Decoder<'static, Source<R>>),
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(stream: R) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER, stream);
        let mut start = Vec::with_capacity(4);
        reader.by_ref().take(4).read_to_end(&mut start)?;
        let compression = Compression::of(&start);
        let source = Cursor::new(start).chain(reader);
        Ok(match compression {
            Compression::None => Self::Plain(source),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
        })
    }

    pub(crate) fn compression(&self) -> Compression {
        match self {
            Self::Plain(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut decoded = Vec::new();
        Decoder::new(bytes)?.read_to_end(&mut decoded)?;
        Ok(decoded)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn tells_the_formats_apart() {
        let zstd = zstd::encode_all(&b"content"[..], 1).unwrap();
        for bytes in [b"content".to_vec(), gzip(b"content"), zstd, [gzip(b"con"), gzip(b"tent")].concat()] {
            assert_eq!(decode(&bytes).unwrap(), b"content");
        }
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"abc").unwrap(), b"abc");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let content: Vec<u8> =
            (0..100_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let zstd = zstd::encode_all(content.as_slice(), 1).unwrap();
        for bytes in [gzip(&content), zstd] {
            assert_eq!(decode(&bytes).unwrap(), content);
            assert!(decode(&bytes[..bytes.len() / 2]).is_err());
        }
    }

    #[test]
    fn a_zstd_window_beyond_the_bound_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[7; 1 << 20]).unwrap();
        let bytes = encoder.finish().unwrap();
        assert!(decode(&bytes).is_err());
    }
}
