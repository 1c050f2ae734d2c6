//! What a child writes, on disk within a bound and its last part in memory. The console is the guest's to fill: it must
//! neither fill the host's disk nor come to a halt.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, openat, renameat},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};

/// When a file has this many bytes it becomes `NAME.1`, in place of the one before.
const ROTATE_AT: u64 = 1 << 20;
/// Bytes kept in memory.
const TAIL: usize = 8 << 10;

/// A log that is still to be written.
#[derive(Debug)]
pub struct BoundedLog {
    /// Held open, because a directory may be renamed while its logs are written: a shell's becomes a pod's.
    directory: Option<OwnedFd>,
    name: OsString,
    file: Option<File>,
    written: u64,
    tail: Tail,
    changes: watch::Sender<Progress>,
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    bytes: u64,
    complete: bool,
}

impl BoundedLog {
    /// A log at `path`. Where the file cannot be written, the tail in memory is all there is.
    pub fn new(path: PathBuf) -> Self {
        let (changes, seen) = watch::channel(Progress::default());
        let tail = Tail { bytes: Arc::default(), seen };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = path.parent().and_then(|parent| rustix::fs::open(parent, flags, Mode::empty()).ok());
        let name = path.file_name().unwrap_or_default().to_owned();
        Self { directory, name, file: None, written: 0, tail, changes }
    }

    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Copies `output` until its end. Never stops reading: a writer that waits for a log is a guest that hangs.
    pub async fn copy(mut self, mut output: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 8 << 10];
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            self.append(&buffer[..length]);
        }
        self.changes.send_modify(|progress| progress.complete = true);
    }

    fn append(&mut self, bytes: &[u8]) {
        {
            let mut tail = self.tail.lock();
            tail.extend(bytes);
            let excess = tail.len().saturating_sub(TAIL);
            tail.drain(..excess);
        }
        if self.file.is_none() || self.written >= ROTATE_AT {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.written += bytes.len() as u64;
        }
        self.changes.send_modify(|progress| progress.bytes += bytes.len() as u64);
    }

    fn rotate(&mut self) {
        let Some(directory) = &self.directory else { return };
        if self.file.take().is_some() {
            let mut old = self.name.clone();
            old.push(".1");
            let _ = renameat(directory, &self.name, directory, &old);
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        self.file = openat(directory, &self.name, flags, Mode::from_raw_mode(0o600)).ok().map(File::from);
        self.written = 0;
    }
}

/// The last part of a log, shared with whoever wants to show or watch it.
#[derive(Debug, Clone)]
pub struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    seen: watch::Receiver<Progress>,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last part as text, without what could drive a terminal.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.lock().iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect()
    }

    /// The last `count` lines that are not empty.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let text = self.text();
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|&line| line.to_owned()).collect()
    }

    /// Waits for a whole line in the tail that has `part` in it; never comes if the log ends without one.
    pub async fn line_containing(&self, part: &str) -> String {
        let mut seen = self.seen.clone();
        loop {
            // Whatever comes after this is a change.
            let complete = seen.borrow_and_update().complete;
            let text = self.text();
            let mut whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            if let Some(line) = whole.find(|line| line.contains(part)) {
                return line.trim_end().to_owned();
            }
            if complete || seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until all output has been read.
    pub async fn complete(&self) {
        // An error is a log whose writer is gone: then too there is nothing to come.
        let _ = self.seen.clone().wait_for(|progress| progress.complete).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_flood_stays_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let log = BoundedLog::new(path.clone());
        let tail = log.tail();
        let flood = vec![b'x'; 5 << 20];
        log.copy([flood.as_slice(), b"\nlast line\n"].concat().as_slice()).await;
        tail.complete().await;
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("console.log") + size("console.log.1") < 3 << 20);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(tail.last_lines(1), ["last line"]);
        assert!(tail.text().len() <= TAIL);
    }

    #[tokio::test]
    async fn a_log_follows_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("shell"), dir.path().join("pod"));
        std::fs::create_dir(&old).unwrap();
        let log = BoundedLog::new(old.join("console.log"));
        std::fs::rename(&old, &new).unwrap();
        log.copy(&b"words\n"[..]).await;
        assert_eq!(std::fs::read_to_string(new.join("console.log")).unwrap(), "words\n");
    }

    #[tokio::test]
    async fn what_drives_a_terminal_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = BoundedLog::new(dir.path().join("log"));
        let tail = log.tail();
        log.copy(&b"\x1b]0;title\x07\x1b[31mred\r\n\xff\n"[..]).await;
        assert_eq!(tail.text(), "]0;title[31mred\n\u{fffd}\n");
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_is_still_read() {
        let log = BoundedLog::new("/no/such/directory/log".into());
        let tail = log.tail();
        log.copy(&b"words\n"[..]).await;
        assert_eq!(tail.text(), "words\n");
    }

    #[tokio::test]
    async fn waits_for_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = BoundedLog::new(dir.path().join("log"));
        let tail = log.tail();
        let (mut writer, reader) = tokio::io::duplex(64);
        let write = async {
            writer.write_all(b"kernel noise\r\npostern: boo").await.unwrap();
            tail.seen.clone().wait_for(|progress| progress.bytes == 26).await.unwrap();
            writer.write_all(b"ted\r\n").await.unwrap();
            writer
        };
        let (line, _writer) = tokio::select! {
            () = log.copy(reader) => panic!("the writer is still there"),
            found = async { tokio::join!(tail.line_containing("postern: "), write) } => found,
        };
        assert_eq!(line, "postern: booted");
    }
}
