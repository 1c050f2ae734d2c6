//! Evidence from a simulated SNP platform, over one stream that is opened once and kept.
//!
//! The platform serves one connection for the life of the guest: whoever holds it is the agent, which opened it
//! before anything else ran. A stream that failed once is out of step and is not used again.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use postern_model::sim_device::{ANSWER_HEADER_LENGTH, decode_answer_header, decode_length, encode_request};
use vsock::VsockStream;

use super::{CollectError, EvidenceSource};
use crate::format::{Evidence, MAX_CERTIFICATES, MAX_REPORT, Tee};

/// From the request to the last byte of the answer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a platform that does not listen yet is waited for, and how often it is tried.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A simulated platform. Protects nothing: whoever runs it can sign anything.
#[derive(Debug)]
pub struct Simulated {
    stream: Mutex<Option<Stream>>,
}

impl Simulated {
    /// Connects to a platform on this machine.
    pub fn unix(path: &Path) -> Result<Self, CollectError> {
        Self::connect(path.display(), || UnixStream::connect(path).map(Stream::Unix))
    }

    /// Connects to a platform on the other side of a vsock, usually the host (CID 2).
    pub fn vsock(cid: u32, port: u32) -> Result<Self, CollectError> {
        Self::connect(format!("vsock:{cid}:{port}"), || {
            VsockStream::connect_with_cid_port(cid, port).map(Stream::Vsock)
        })
    }

    fn connect(
        address: impl ToString,
        mut connect: impl FnMut() -> io::Result<Stream>,
    ) -> Result<Self, CollectError> {
        let end = Instant::now() + CONNECT_DEADLINE;
        loop {
            match connect() {
                Ok(stream) => return Ok(Self { stream: Mutex::new(Some(stream)) }),
                Err(source) if Instant::now() >= end => {
                    return Err(CollectError::Connect { address: address.to_string(), source });
                }
                Err(_) => thread::sleep(CONNECT_PAUSE),
            }
        }
    }
}

impl EvidenceSource for Simulated {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CollectError> {
        let mut slot = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, and put back only after a whole answer.
        let mut stream = slot.take().ok_or(CollectError::Broken)?;
        let evidence = request(&mut stream, report_data)?;
        *slot = Some(stream);
        Ok(evidence)
    }
}

fn request(stream: &mut Stream, report_data: &[u8; 64]) -> Result<Evidence, CollectError> {
    let end = Instant::now() + REQUEST_DEADLINE;
    stream.set_write_timeout(REQUEST_DEADLINE).map_err(CollectError::Stream)?;
    stream.write_all(&encode_request(report_data)).map_err(CollectError::Stream)?;

    let mut header = [0; ANSWER_HEADER_LENGTH];
    stream.read_until(end, &mut header)?;
    let report = stream.blob_until(end, decode_answer_header(&header)?, MAX_REPORT)?;
    let mut length = [0; 4];
    stream.read_until(end, &mut length)?;
    let certificates = stream.blob_until(end, decode_length(length)?, MAX_CERTIFICATES)?;
    Ok(Evidence { tee: Tee::Snp, report, certificates })
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Vsock(VsockStream),
}

impl Stream {
    fn blob_until(&mut self, end: Instant, length: usize, limit: usize) -> Result<Vec<u8>, CollectError> {
        if length > limit {
            return Err(CollectError::TooLarge { limit });
        }
        let mut blob = vec![0; length];
        self.read_until(end, &mut blob)?;
        Ok(blob)
    }

    /// Fills `buffer`, or fails when `end` has passed, however slowly bytes drip in.
    fn read_until(&mut self, end: Instant, buffer: &mut [u8]) -> Result<(), CollectError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CollectError::Stream(io::ErrorKind::TimedOut.into()));
            }
            self.set_read_timeout(left).map_err(CollectError::Stream)?;
            match self.read(&mut buffer[filled..]) {
                Ok(0) => return Err(CollectError::Stream(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(CollectError::Stream(error)),
            }
        }
        Ok(())
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Vsock(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Vsock(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Vsock(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Vsock(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Vsock(stream) => stream.flush(),
        }
    }
}
