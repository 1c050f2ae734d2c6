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
/// How long a platform that does not listen yet is waited for, and how often it is tried. A user-space vsock device on a
/// loaded host loses connections; the kernel gives up on one after two seconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A simulated platform. Protects nothing: whoever runs it can sign anything.
#[derive(Debug)]
pub struct Simulated {
    stream: Mutex<Option<Stream>>,
    deadline: Duration,
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
                Ok(stream) => return Ok(Self::over(stream, REQUEST_DEADLINE)),
                Err(source) if Instant::now() >= end => {
                    return Err(CollectError::Connect { address: address.to_string(), source });
                }
                Err(_) => thread::sleep(CONNECT_PAUSE),
            }
        }
    }

    fn over(stream: Stream, deadline: Duration) -> Self {
        Self { stream: Mutex::new(Some(stream)), deadline }
    }
}

impl EvidenceSource for Simulated {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CollectError> {
        let mut slot = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, and put back only after a whole answer.
        let mut stream = slot.take().ok_or(CollectError::Broken)?;
        let evidence = request(&mut stream, report_data, self.deadline)?;
        *slot = Some(stream);
        Ok(evidence)
    }
}

fn request(
    stream: &mut Stream,
    report_data: &[u8; 64],
    deadline: Duration,
) -> Result<Evidence, CollectError> {
    let end = Instant::now() + deadline;
    stream.set_write_timeout(deadline).map_err(CollectError::Stream)?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use postern_model::{
        HostData, Measurement,
        sim_device::{REQUEST_LENGTH, SimDeviceError, encode_answer, encode_refusal},
    };
    use postern_simtee::{Launch, Platform, serve};

    use super::*;

    #[test]
    fn a_served_guest_gets_evidence_as_often_as_it_asks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tee");
        let launch = Launch::new(Measurement::new([1; 48]), HostData::new([2; 32]));
        let guest = Platform::ephemeral().unwrap().launch(launch).unwrap();
        let certificates = guest.certificates().to_vec();
        let _server = serve(UnixListener::bind(&path).unwrap(), guest).unwrap();
        let source = Simulated::unix(&path).unwrap();
        for byte in 0..3 {
            let evidence = source.evidence(&[byte; 64]).unwrap();
            assert_eq!(crate::snp::parse(&evidence.report).unwrap().report_data, [byte; 64]);
            assert_eq!(evidence.certificates, certificates);
        }
        // Whoever comes second has a connection and no evidence.
        assert!(Simulated::unix(&path).unwrap().evidence(&[9; 64]).is_err());
        source.evidence(&[4; 64]).unwrap();
    }

    /// Asks a platform that answers with `answer`, twice.
    fn ask(answer: Vec<u8>) -> (CollectError, CollectError) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let platform = thread::spawn(move || {
            theirs.read_exact(&mut [0; REQUEST_LENGTH]).unwrap();
            theirs.write_all(&answer).unwrap();
            // Open until the other end is closed: silence, not an end.
            let _ = theirs.read(&mut [0; 1]);
        });
        let source = Simulated::over(Stream::Unix(ours), Duration::from_millis(200));
        let errors = (source.evidence(&[0; 64]).unwrap_err(), source.evidence(&[0; 64]).unwrap_err());
        drop(source);
        platform.join().unwrap();
        errors
    }

    #[test]
    fn a_platform_that_fails_once_is_not_asked_again() {
        let whole = encode_answer(&[1; 1184], &[2; 100]);
        let silent = |error: &CollectError| matches!(error, CollectError::Stream(e) if e.kind() == io::ErrorKind::TimedOut);
        for cut in [0, 8, 100, whole.len() - 1] {
            let (first, second) = ask(whole[..cut].to_vec());
            assert!(silent(&first), "{cut}: {first:?}");
            assert!(matches!(second, CollectError::Broken));
        }
        let (refused, _) = ask(encode_refusal(5).to_vec());
        assert!(matches!(refused, CollectError::Protocol(SimDeviceError::Status(5))));
        let (nonsense, _) = ask(vec![b'x'; 64]);
        assert!(matches!(nonsense, CollectError::Protocol(SimDeviceError::Magic)));
        let (large, _) = ask(encode_answer(&[0; MAX_REPORT + 1], &[]));
        assert!(matches!(large, CollectError::TooLarge { .. }));
    }
}
