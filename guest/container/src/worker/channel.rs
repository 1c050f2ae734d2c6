//! Messages with descriptors over a unix stream socket, from both sides: blocking in a worker, awaiting in the runtime.
//!
//! A message is `json length u32 | blob length u32 | json | blob`, little-endian; descriptors ride on its first byte.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

/// Largest message: room for the longest argument list the kernel takes, JSON's overhead included.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Most descriptors in one message.
const MAX_FDS: usize = 8;
const PREFIX: usize = 8;

/// A message as it came in.
#[derive(Debug)]
pub(crate) struct Message<T> {
    pub(crate) body: T,
    pub(crate) attached: Attached,
}

/// What a message carries beside its body.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) blob: Vec<u8>,
    fds: std::vec::IntoIter<OwnedFd>,
}

impl Attached {
    /// The next descriptor; by the protocol it must be there.
    pub(crate) fn fd(&mut self) -> io::Result<OwnedFd> {
        self.fds.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing"))
    }
}

fn encode(body: &impl Serialize, blob: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, body)?;
    let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let json = length(bytes.len() - PREFIX)?;
    bytes[..4].copy_from_slice(&json.to_le_bytes());
    bytes[4..PREFIX].copy_from_slice(&length(blob.len())?.to_le_bytes());
    bytes.extend_from_slice(blob);
    if bytes.len() > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is too long"));
    }
    Ok(bytes)
}

fn lengths(prefix: [u8; PREFIX]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let (json, blob) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
    match json.saturating_add(blob) > MAX_MESSAGE {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "message is too long")),
        false => Ok((json, blob)),
    }
}

fn decode<T: DeserializeOwned>(mut rest: Vec<u8>, json: usize, fds: Vec<OwnedFd>) -> io::Result<Message<T>> {
    let blob = rest.split_off(json);
    Ok(Message { body: serde_json::from_slice(&rest)?, attached: Attached { blob, fds: fds.into_iter() } })
}

/// Sends as much of `bytes` as fits, with all of `fds`.
fn send_some(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(rustix::io::Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}

fn receive_some(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(received.bytes)
}

/// Blocking send.
pub(crate) fn send(
    socket: impl AsFd,
    body: &impl Serialize,
    blob: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(body, blob)?;
    let mut sent = 0;
    while sent < bytes.len() {
        match send_some(&socket, &bytes[sent..], if sent == 0 { fds } else { &[] }) {
            Ok(count) => sent += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Blocking receive; `None` at end of file.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<Message<T>>> {
    let mut fds = Vec::new();
    let mut fill = |buffer: &mut [u8]| -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match receive_some(&socket, &mut buffer[filled..], &mut fds) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    };
    let mut prefix = [0; PREFIX];
    match fill(&mut prefix)? {
        0 => return Ok(None),
        PREFIX => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let (json, blob) = lengths(prefix)?;
    let mut rest = vec![0; json + blob];
    if fill(&mut rest)? != rest.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(rest, json, fds).map(Some)
}

/// Blocking receive of one descriptor, whatever the message says.
pub(crate) fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut fds = Vec::new();
    receive_some(socket, &mut [0; 4096], &mut fds)?;
    fds.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing"))
}

/// Awaiting send.
pub(crate) async fn send_async(
    socket: &UnixStream,
    body: &impl Serialize,
    blob: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(body, blob)?;
    let mut sent = 0;
    while sent < bytes.len() {
        let fds = if sent == 0 { fds } else { &[] };
        sent += socket.async_io(Interest::WRITABLE, || Ok(send_some(socket, &bytes[sent..], fds)?)).await?;
    }
    Ok(())
}

/// Awaiting receive; `None` at end of file.
pub(crate) async fn receive_async<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<Option<Message<T>>> {
    let mut fds = Vec::new();
    let mut prefix = [0; PREFIX];
    match fill_async(socket, &mut prefix, &mut fds).await? {
        0 => return Ok(None),
        PREFIX => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let (json, blob) = lengths(prefix)?;
    let mut rest = vec![0; json + blob];
    if fill_async(socket, &mut rest, &mut fds).await? != rest.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(rest, json, fds).map(Some)
}

async fn fill_async(socket: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read = || -> io::Result<usize> { Ok(receive_some(socket, &mut buffer[filled..], fds)?) };
        match socket.async_io(Interest::READABLE, read).await {
            Ok(0) => break,
            Ok(count) => filled += count,
            // A peer that dies with unread bytes in its buffer resets; for us that is the end of the stream.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
