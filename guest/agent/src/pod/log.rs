//! A container's output: one bounded ring, written by the container's pump, read by any number of readers.
//!
//! `logs` readers never slow the container down: what the ring overwrites before they come is counted as dropped.
//! An attached reader *holds* the ring: the container waits for it as it would for a pipe, so that nothing is lost on a
//! foreground run. A holder that takes nothing for [`HOLD_PATIENCE`] loses its hold, not its place.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

use crate::clock::unix_millis;

/// Bytes of output and book-keeping that one container's log may hold.
pub(super) const LOG_CAPACITY: usize = 1 << 20;
/// Longest that an attached reader may keep the container waiting without taking anything.
const HOLD_PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes handed out at once.
const READ_LIMIT: usize = 128 << 10;
const ENTRY_COST: usize = size_of::<Entry>();

/// Which of the two outputs bytes came from; a terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub unix_millis: u64,
    pub stream: Stream,
    pub data: Bytes,
    /// Bytes lost between the last piece and this one.
    pub dropped: u64,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Oldest,
    /// Only what comes after this call.
    Now,
    LastLines(u64),
}

/// A run of bytes of one stream that were read within one millisecond.
#[derive(Debug, Clone, Copy)]
struct Entry {
    end: u64,
    unix_millis: u64,
    stream: Stream,
}

#[derive(Debug)]
struct Ring {
    capacity: usize,
    data: VecDeque<u8>,
    entries: VecDeque<Entry>,
    /// Position of the first byte of `data`; positions count from the container's first byte ever.
    start: u64,
    /// Positions below which held bytes may not be overwritten.
    holds: Vec<(u64, u64)>,
    next_hold: u64,
    /// No writer at the moment: a following reader that has everything is at the end.
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    patience: Duration,
    ring: Mutex<Ring>,
    /// More bytes, or the end.
    news: Notify,
    /// A holder moved on or left.
    room: Notify,
}

impl Log {
    pub fn new(capacity: usize) -> Arc<Self> {
        Self::with_patience(capacity, HOLD_PATIENCE)
    }

    fn with_patience(capacity: usize, patience: Duration) -> Arc<Self> {
        let ring = Ring {
            capacity,
            data: VecDeque::new(),
            entries: VecDeque::new(),
            start: 0,
            holds: Vec::new(),
            next_hold: 0,
            closed: true,
        };
        Arc::new(Self { patience, ring: Mutex::new(ring), news: Notify::new(), room: Notify::new() })
    }

    /// A process is about to write: followers wait for it.
    pub fn open(&self) {
        self.ring().closed = false;
    }

    /// The process has written its last.
    pub fn close(&self) {
        self.ring().closed = true;
        self.news.notify_waiters();
    }

    /// Adds output; waits while an attached reader still needs what would be overwritten.
    pub async fn append(&self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let taken = self.ring().push(stream, bytes, unix_millis());
            bytes = &bytes[taken..];
            if taken > 0 {
                self.news.notify_waiters();
            } else if timeout(self.patience, room).await.is_err() {
                self.ring().drop_slowest_holds();
            }
        }
    }

    /// Bytes that the ring no longer holds.
    pub fn dropped_bytes(&self) -> u64 {
        self.ring().start
    }

    /// A reader that the container does not wait for.
    pub fn reader(self: &Arc<Self>, from: From) -> Reader {
        let ring = self.ring();
        let position = ring.position(from);
        Reader { log: Arc::clone(self), position, hold: None, report_drops_before: position > ring.start }
    }

    /// A reader that the container waits for.
    pub fn attached_reader(self: &Arc<Self>, from: From) -> Reader {
        let mut ring = self.ring();
        let position = ring.position(from);
        let hold = ring.next_hold;
        ring.next_hold += 1;
        ring.holds.push((hold, position));
        drop(ring);
        Reader { log: Arc::clone(self), position, hold: Some(hold), report_drops_before: true }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it holds the lock; if it did, the ring is still a ring.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }

    fn position(&self, from: From) -> u64 {
        match from {
            From::Oldest => self.start,
            From::Now => self.end(),
            From::LastLines(0) => self.end(),
            From::LastLines(wanted) => {
                // The newline that ends the last line does not begin another.
                let mut lines = 0;
                for (index, _) in
                    self.data.iter().enumerate().rev().skip(1).filter(|(_, byte)| **byte == b'\n')
                {
                    lines += 1;
                    if lines == wanted {
                        return self.start + index as u64 + 1;
                    }
                }
                self.start
            }
        }
    }

    /// Takes what fits once everything that nobody holds may go; how much that was.
    fn push(&mut self, stream: Stream, bytes: &[u8], now: u64) -> usize {
        let held_from = self.holds.iter().map(|&(_, position)| position).min();
        let evictable = held_from.map_or(self.data.len(), |held| held.saturating_sub(self.start) as usize);
        let kept = self.data.len() - evictable.min(self.data.len());
        let limit =
            self.capacity.saturating_sub((self.entries.len() + 1) * ENTRY_COST).max(self.capacity / 32);
        let taken = bytes.len().min(limit.saturating_sub(kept));
        if taken == 0 {
            return 0;
        }
        let excess = (self.data.len() + taken).saturating_sub(limit);
        self.evict(excess);
        if self.data.capacity() < self.data.len() + taken {
            let wanted = (self.data.len() + taken).next_power_of_two().min(self.capacity);
            self.data.reserve_exact(wanted.saturating_sub(self.data.len()).max(taken));
        }
        self.data.extend(&bytes[..taken]);
        let end = self.end();
        match self.entries.back_mut() {
            Some(last) if last.stream == stream && last.unix_millis == now => last.end = end,
            _ => self.entries.push_back(Entry { end, unix_millis: now, stream }),
        }
        taken
    }

    fn evict(&mut self, bytes: usize) {
        self.data.drain(..bytes);
        self.start += bytes as u64;
        while self.entries.front().is_some_and(|entry| entry.end <= self.start) {
            self.entries.pop_front();
        }
    }

    fn drop_slowest_holds(&mut self) {
        let slowest = self.holds.iter().map(|&(_, position)| position).min();
        self.holds.retain(|&(_, position)| Some(position) != slowest);
    }

    /// The run of bytes at `position`, cut to [`READ_LIMIT`].
    fn read(&self, position: u64) -> Option<(Entry, Bytes)> {
        let index = self.entries.partition_point(|entry| entry.end <= position);
        let entry = *self.entries.get(index)?;
        let from = (position - self.start) as usize;
        let to = ((entry.end - self.start) as usize).min(from + READ_LIMIT);
        let mut data = Vec::with_capacity(to - from);
        let (first, second) = self.data.as_slices();
        data.extend_from_slice(first.get(from..to.min(first.len())).unwrap_or_default());
        data.extend_from_slice(
            second.get(from.saturating_sub(first.len())..to.saturating_sub(first.len())).unwrap_or_default(),
        );
        Some((entry, data.into()))
    }
}

/// One reader's place in the log.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    position: u64,
    hold: Option<u64>,
    /// A reader of the whole log is told what was lost before it came.
    report_drops_before: bool,
}

impl Reader {
    /// The next piece if there is one now.
    pub fn try_next(&mut self) -> Option<Chunk> {
        let mut ring = self.log.ring();
        let dropped = match self.report_drops_before {
            true => ring.start.saturating_sub(self.position),
            // Begun at the oldest byte: what was overwritten before counts too.
            false => ring.start,
        };
        self.position = self.position.max(ring.start);
        let (entry, data) = ring.read(self.position)?;
        self.report_drops_before = true;
        self.position += data.len() as u64;
        if let Some(hold) = ring.holds.iter_mut().find(|(id, _)| Some(*id) == self.hold) {
            hold.1 = self.position;
        }
        drop(ring);
        if self.hold.is_some() {
            self.log.room.notify_waiters();
        }
        Some(Chunk { unix_millis: entry.unix_millis, stream: entry.stream, data, dropped })
    }

    /// The next piece; `None` once everything was read and nobody writes any more.
    pub async fn next(&mut self) -> Option<Chunk> {
        loop {
            let log = Arc::clone(&self.log);
            let news = log.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            // Looked at before the bytes are: what is written between the two wakes us.
            let closed = log.ring().closed;
            if let Some(chunk) = self.try_next() {
                return Some(chunk);
            }
            if closed {
                return None;
            }
            news.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(hold) = self.hold {
            self.log.ring().holds.retain(|&(id, _)| id != hold);
            self.log.room.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
