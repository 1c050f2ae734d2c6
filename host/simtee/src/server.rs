//! Serves one guest's reports on a socket, as a secure processor serves one guest's requests.
//!
//! Exactly one connection is answered for the life of the guest: its agent opens it before anything else runs, so
//! that nothing started later can ask for reports in its name. Later ones are closed unread. A connection that was
//! opened and never asked (a guest under load gives up on one and tries again) gives way to the next.
//!
//! ```text
//! Free --connection--> Claimed --first answer--> Held --end or error--> Gone
//!   ^--- end, unasked ----/ \--- newer connection: Claimed
//! ```
//! One thread, no queue; every read and write has a deadline.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use postern_model::sim_device::{REQUEST_LENGTH, decode_request, encode_answer, encode_refusal};
use rustix::event::{PollFd, PollFlags, poll};

use crate::platform::GuestContext;

/// For one request to arrive whole, and for its answer to be taken.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// `EIO`, as the firmware's driver would say it.
const STATUS_FAILED: u32 = 5;

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct SimServer {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// Serves `guest` on `listener` until the server is dropped.
pub fn serve(listener: UnixListener, guest: GuestContext) -> io::Result<SimServer> {
    let (stop, stopped) = UnixStream::pair()?;
    listener.set_nonblocking(true)?;
    let thread = thread::Builder::new()
        .name("simtee".into())
        .spawn(move || Server { listener, stopped, guest, device: Device::Free }.run())?;
    Ok(SimServer { stop, thread: Some(thread) })
}

impl Drop for SimServer {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It ends within the deadline of a request; whether it panicked does not matter any more.
            let _ = thread.join();
        }
    }
}

struct Server {
    listener: UnixListener,
    stopped: UnixStream,
    guest: GuestContext,
    device: Device,
}

/// Who holds the device.
enum Device {
    Free,
    /// Connected, and never answered.
    Claimed(UnixStream),
    /// Answered at least once: its for good.
    Held(UnixStream),
    /// Was held once; nobody gets it again.
    Gone,
}

impl Server {
    fn run(mut self) {
        loop {
            let mut watched =
                vec![PollFd::new(&self.stopped, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            if let Device::Claimed(holder) | Device::Held(holder) = &self.device {
                watched.push(PollFd::new(holder, PollFlags::IN));
            }
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = watched.iter().map(|one| !one.revents().is_empty()).collect();
            drop(watched);
            if ready[0] {
                return;
            }
            if ready.get(2) == Some(&true) {
                self.answer();
            }
            if ready[1] {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        // A connection that is gone again is no holder.
        let Ok((stream, _)) = self.listener.accept() else { return };
        if matches!(self.device, Device::Free | Device::Claimed(_)) && stream.set_nonblocking(false).is_ok() {
            self.device = Device::Claimed(stream);
        }
    }

    fn answer(&mut self) {
        self.device = match std::mem::replace(&mut self.device, Device::Gone) {
            Device::Claimed(mut holder) => match answer_one(&mut holder, &self.guest) {
                Ok(()) => Device::Held(holder),
                Err(Unanswered::Nothing) => Device::Free,
                Err(Unanswered::Half) => Device::Gone,
            },
            Device::Held(mut holder) => match answer_one(&mut holder, &self.guest) {
                Ok(()) => Device::Held(holder),
                Err(_) => Device::Gone,
            },
            Device::Free => Device::Free,
            Device::Gone => Device::Gone,
        };
    }
}

/// Why a connection got no answer.
enum Unanswered {
    /// It ended before a byte of a request.
    Nothing,
    /// It spoke, and not as it should.
    Half,
}

fn answer_one(stream: &mut UnixStream, guest: &GuestContext) -> Result<(), Unanswered> {
    let end = Instant::now() + REQUEST_DEADLINE;
    let mut request = [0; REQUEST_LENGTH];
    let mut filled = 0;
    while filled < request.len() {
        match read_until(stream, end, &mut request[filled..]) {
            Ok(read @ 1..) => filled += read,
            Ok(0) | Err(_) if filled == 0 => return Err(Unanswered::Nothing),
            Ok(_) | Err(_) => return Err(Unanswered::Half),
        }
    }
    reply(stream, guest, &request).map_err(|_| Unanswered::Half)
}

fn read_until(stream: &mut UnixStream, end: Instant, buffer: &mut [u8]) -> io::Result<usize> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.read(buffer)
}

fn reply(stream: &mut UnixStream, guest: &GuestContext, request: &[u8; REQUEST_LENGTH]) -> io::Result<()> {
    let report_data = decode_request(request).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(REQUEST_DEADLINE))?;
    match guest.report(&report_data) {
        Ok(report) => stream.write_all(&encode_answer(&report, guest.certificates())),
        Err(_) => stream.write_all(&encode_refusal(STATUS_FAILED)),
    }
}

#[cfg(test)]
mod tests;
