//! The audit of host calls: a bounded ring that the owner reads and the host can neither read nor stop.
//!
//! Recording takes a short lock and never waits. Identical neighbours become one record with a count, so that a host
//! cannot wash out what it did by repeating something harmless. What falls out of the ring leaves a gap in the sequence
//! numbers, and readers are told how wide it is. The ring belongs to the agent: nothing a container does resets it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use postern_model::{AuditRecord, Phase, Sha256, Verdict};
use tokio::sync::watch;

/// How many records an agent keeps: about a megabyte when full.
pub const CAPACITY: usize = 4096;
/// Longest method name kept, in bytes after escaping.
pub const MAX_METHOD: usize = 96;

/// Handle on the one audit of this guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Sequence number that the next record will get; readers sleep on it.
    next: watch::Sender<u64>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<AuditRecord>,
    next: u64,
    /// A reader has been given the newest record: its count is final, and a repetition starts a new record.
    newest_is_final: bool,
}

/// What is recorded of a call.
#[derive(Debug, Clone, Copy)]
pub struct AuditedCall<'a> {
    /// As the host wrote it; bounded and escaped on the way in.
    pub method: &'a str,
    pub phase: Phase,
    pub verdict: Verdict,
    pub request_digest: Sha256,
}

/// Whether a reader ends at the newest record or waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    Yes,
    No,
}

/// One record on its way to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub record: AuditRecord,
    /// Records that had fallen out of the ring before this reader came to them.
    pub dropped_before: u64,
}

/// Reads the audit from a sequence number on, oldest first.
#[derive(Debug)]
pub struct AuditReader {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    next: u64,
    follow: Follow,
}

impl Default for Audit {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl Audit {
    /// An empty audit that keeps the newest `capacity` records, at least one.
    pub fn new(capacity: usize) -> Self {
        let shared =
            Shared { ring: Mutex::default(), next: watch::Sender::new(0), capacity: capacity.max(1) };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a call. Never waits for a reader.
    pub fn record(&self, call: AuditedCall<'_>) {
        let mut ring = self.shared.ring();
        let method = bounded(call.method);
        if let Some(newest) = ring.repeated(&method, call) {
            newest.repeated = newest.repeated.saturating_add(1);
            return;
        }
        if ring.records.len() == self.shared.capacity {
            ring.records.pop_front();
        }
        let sequence = ring.next;
        ring.records.push_back(AuditRecord {
            sequence,
            unix_millis: unix_millis(),
            method,
            phase: call.phase,
            verdict: call.verdict,
            request_digest: call.request_digest,
            repeated: 1,
        });
        ring.next = sequence + 1;
        ring.newest_is_final = false;
        drop(ring);
        self.shared.next.send_replace(sequence + 1);
    }

    /// How many records there have been so far, those that fell out included.
    pub fn recorded(&self) -> u64 {
        self.shared.ring().next
    }

    /// Reads from sequence number `from` on.
    pub fn subscribe(&self, from: u64, follow: Follow) -> AuditReader {
        AuditReader { shared: self.shared.clone(), changes: self.shared.next.subscribe(), next: from, follow }
    }
}

impl AuditReader {
    /// The next record; waits for one when following, otherwise `None` at the end. Nothing is lost when dropped.
    pub async fn next(&mut self) -> Option<AuditEntry> {
        loop {
            self.changes.borrow_and_update();
            if let Some(entry) = self.take() {
                return Some(entry);
            }
            match self.follow {
                Follow::No => return None,
                // The sender lives in `shared`, which this reader holds, so this fails never; the end is the safe answer.
                Follow::Yes => self.changes.changed().await.ok()?,
            }
        }
    }

    fn take(&mut self) -> Option<AuditEntry> {
        let mut ring = self.shared.ring();
        let oldest = ring.records.front()?.sequence;
        let wanted = self.next.max(oldest);
        let record = ring.records.get(usize::try_from(wanted - oldest).ok()?)?.clone();
        if wanted + 1 == ring.next {
            ring.newest_is_final = true;
        }
        let dropped_before = wanted - self.next;
        self.next = wanted + 1;
        Some(AuditEntry { record, dropped_before })
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every change below leaves the ring whole, so a panic elsewhere cannot have broken it.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The newest record, when this call repeats it.
    fn repeated(&mut self, method: &str, call: AuditedCall<'_>) -> Option<&mut AuditRecord> {
        let same = |record: &&mut AuditRecord| {
            record.method == method && record.phase == call.phase && record.verdict == call.verdict
        };
        match self.newest_is_final {
            true => None,
            false => self.records.back_mut().filter(same),
        }
    }
}

/// A name from the host, fit to be shown: printable ASCII, everything else escaped, cut with a mark.
fn bounded(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        let length = text.len();
        match character {
            ' '..='~' => text.push(character),
            other => text.extend(other.escape_unicode()),
        }
        if text.len() > MAX_METHOD - 2 {
            text.truncate(length);
            text.push_str("..");
            break;
        }
    }
    text
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn call(method: &str) -> AuditedCall<'_> {
        AuditedCall {
            method,
            phase: Phase::Owned,
            verdict: Verdict::Refused,
            request_digest: Sha256::new([7; 32]),
        }
    }

    async fn all(audit: &Audit, from: u64) -> Vec<AuditEntry> {
        let mut reader = audit.subscribe(from, Follow::No);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().await {
            entries.push(entry);
        }
        entries
    }

    #[tokio::test]
    async fn reads_in_order_from_where_it_is_asked() {
        let audit = Audit::new(8);
        for method in ["a", "b", "c"] {
            audit.record(call(method));
        }
        let names = |entries: Vec<AuditEntry>| {
            entries.into_iter().map(|e| (e.record.sequence, e.record.method)).collect::<Vec<_>>()
        };
        assert_eq!(names(all(&audit, 1).await), [(1, "b".into()), (2, "c".into())]);
        assert_eq!(all(&audit, 3).await, []);
        assert_eq!(all(&audit, u64::MAX).await, []);
        assert_eq!(audit.recorded(), 3);
    }

    #[tokio::test]
    async fn identical_neighbours_become_one_record() {
        let audit = Audit::new(8);
        for _ in 0..1000 {
            audit.record(call("ExecProcess"));
        }
        audit.record(AuditedCall { verdict: Verdict::Allowed, ..call("ExecProcess") });
        let entries = all(&audit, 0).await;
        assert_eq!(entries.iter().map(|e| e.record.repeated).collect::<Vec<_>>(), [1000, 1]);
    }

    #[tokio::test]
    async fn a_count_that_was_read_is_final() {
        let audit = Audit::new(8);
        audit.record(call("a"));
        assert_eq!(all(&audit, 0).await.len(), 1);
        audit.record(call("a"));
        let entries = all(&audit, 0).await;
        assert_eq!(entries.iter().map(|e| e.record.repeated).collect::<Vec<_>>(), [1, 1]);
    }

    #[tokio::test]
    async fn what_fell_out_is_counted() {
        let audit = Audit::new(2);
        for method in ["a", "b", "c", "d", "e"] {
            audit.record(call(method));
        }
        let entries = all(&audit, 1).await;
        assert_eq!(entries[0].record.method, "d");
        assert_eq!(entries[0].dropped_before, 2);
        assert_eq!(entries[1].dropped_before, 0);
    }

    #[tokio::test]
    async fn a_follower_waits_for_what_comes() {
        let audit = Audit::new(2);
        let mut reader = audit.subscribe(0, Follow::Yes);
        assert!(reader.next().now_or_never().is_none());
        audit.record(call("a"));
        assert_eq!(reader.next().await.unwrap().record.method, "a");
        audit.record(call("a"));
        assert_eq!(reader.next().await.unwrap().record.sequence, 1);
    }

    #[test]
    fn names_are_bounded_and_escaped() {
        assert_eq!(bounded("ExecProcess"), "ExecProcess");
        assert_eq!(bounded("a\x1b[31m\nb"), "a\\u{1b}[31m\\u{a}b");
        let long = bounded(&"\u{1f600}".repeat(1000));
        assert!(long.len() <= MAX_METHOD && long.is_ascii() && long.ends_with(".."), "{long}");
    }
}
