//! Finds the one block device that carries the owner's init data, and reads as much of it as its header says.
//!
//! The device is the host's, so nothing of it is believed: its digest is compared with the launch's before it is
//! decoded. Here only amounts are bounded. None, or two, is a machine the owner did not describe.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use postern_launch::init_data::{MAGIC, MAX_DEVICE};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

/// The magic word, then the length of what follows, little-endian.
const HEADER: usize = MAGIC.len() + 8;
/// Drivers have probed when their module is loaded, so a device is there or a moment late.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks where nothing tells of a new device.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// More disks than any pod has.
const MAX_DISKS: usize = 64;

/// Why there is no init data.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "no block device carries init data ({disks} looked at, waited {seconds} s); start the guest with the owner's"
    )]
    None { disks: usize, seconds: u64 },
    #[error("init data on both {} and {}; a guest has exactly one owner", first.display(), second.display())]
    Two { first: PathBuf, second: PathBuf },
    #[error("more than {MAX_DISKS} block devices")]
    TooManyDisks,
    #[error("init data on {} claims {length} bytes; at most {limit} are read", device.display())]
    TooLong { device: PathBuf, length: u64, limit: u64 },
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl DeviceError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }
}

pub(super) fn find() -> Result<Vec<u8>, DeviceError> {
    find_in(Path::new("/dev"), APPEARS_WITHIN)
}

fn find_in(directory: &Path, within: Duration) -> Result<Vec<u8>, DeviceError> {
    let deadline = Instant::now() + within;
    let mut watch = Watch::NotYet;
    loop {
        let disks = disks(directory)?;
        if let Some(device) = the_one(&disks)? {
            return read(&device);
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(DeviceError::None { disks: disks.len(), seconds: within.as_secs() });
        }
        match &watch {
            // Look again before waiting: what appeared before there was a watch is no event.
            Watch::NotYet => watch = Watch::on(directory)?,
            Watch::Events(events) => {
                wait(events, remaining).map_err(DeviceError::io("watching", directory))?;
            }
            Watch::Unavailable => std::thread::sleep(LOOK_AGAIN.min(remaining)),
        }
    }
}

/// Tells of new devices. Only made when one is late, which with drivers built in it never is: to end a watch costs more
/// than all of the looking (the kernel waits until nobody can be reading it).
enum Watch {
    NotYet,
    Events(OwnedFd),
    /// A specialised kernel may leave it out.
    Unavailable,
}

impl Watch {
    fn on(directory: &Path) -> Result<Self, DeviceError> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|watch| {
            inotify::add_watch(&watch, directory, WatchFlags::CREATE | WatchFlags::ONLYDIR)?;
            Ok(watch)
        });
        match watch {
            Ok(watch) => Ok(Self::Events(watch)),
            Err(Errno::NOSYS) => Ok(Self::Unavailable),
            Err(error) => Err(DeviceError::io("watching", directory)(error.into())),
        }
    }
}

/// Whole virtio disks (`vda`, never `vda1`), in order.
fn disks(directory: &Path) -> Result<Vec<PathBuf>, DeviceError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(DeviceError::io("listing", directory))? {
        let entry = entry.map_err(DeviceError::io("listing", directory))?;
        let name = entry.file_name();
        let letters = name.to_str().and_then(|name| name.strip_prefix("vd")).unwrap_or_default();
        if letters.is_empty() || !letters.bytes().all(|c| c.is_ascii_lowercase()) {
            continue;
        }
        if found.len() == MAX_DISKS {
            return Err(DeviceError::TooManyDisks);
        }
        found.push(entry.path());
    }
    found.sort();
    Ok(found)
}

fn the_one(disks: &[PathBuf]) -> Result<Option<PathBuf>, DeviceError> {
    let mut one: Option<&PathBuf> = None;
    for disk in disks {
        let mut header = Vec::with_capacity(HEADER);
        let read = File::open(disk).and_then(|file| file.take(HEADER as u64).read_to_end(&mut header));
        read.map_err(DeviceError::io("reading", disk))?;
        if !header.starts_with(MAGIC) {
            continue;
        }
        if let Some(first) = one {
            return Err(DeviceError::Two { first: first.clone(), second: disk.clone() });
        }
        one = Some(disk);
    }
    Ok(one.cloned())
}

fn read(device: &Path) -> Result<Vec<u8>, DeviceError> {
    let failed = DeviceError::io;
    let mut file = File::open(device).map_err(failed("opening", device))?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(failed("reading", device))?;
    let [_, _, _, _, _, _, _, _, length @ ..] = header;
    let length = u64::from_le_bytes(length);
    let limit = (MAX_DEVICE - HEADER) as u64;
    if length > limit {
        return Err(DeviceError::TooLong { device: device.into(), length, limit });
    }
    let mut bytes = header.to_vec();
    let expected = HEADER as u64 + length;
    file.take(length).read_to_end(&mut bytes).map_err(failed("reading", device))?;
    if bytes.len() as u64 != expected {
        let short =
            io::Error::new(io::ErrorKind::UnexpectedEof, "the device is shorter than its header says");
        return Err(failed("reading", device)(short));
    }
    Ok(bytes)
}

fn wait(watch: &impl AsFd, at_most: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: at_most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    // Only that something appeared matters, not what.
    let mut events = [0; 1024];
    while matches!(rustix::io::read(watch, &mut events), Ok(1..)) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(payload: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &(payload.len() as u64).to_le_bytes(), payload].concat()
    }

    fn with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<Vec<u8>, DeviceError>) {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let found = find_in(directory.path(), Duration::ZERO);
        (directory, found)
    }

    #[test]
    fn finds_it_among_other_disks_and_reads_no_further_than_its_header_says() {
        let carried = device(b"owner");
        let padded = [carried.as_slice(), &[0xff; 512]].concat();
        let (_directory, found) =
            with(&[("vda", &[0; 512]), ("vdb", &padded), ("vdc", b""), ("vda1", &carried)]);
        assert_eq!(found.unwrap(), carried);
    }

    #[test]
    fn refuses_none_and_two() {
        let one = device(b"owner");
        let (_directory, found) = with(&[("vda", &[0; 512]), ("sda", &one), ("vda1", &one), ("vd", &one)]);
        assert!(matches!(found, Err(DeviceError::None { disks: 1, .. })), "{found:?}");
        let (_directory, found) = with(&[("vda", &one), ("vdaa", &one)]);
        assert!(matches!(found, Err(DeviceError::Two { .. })), "{found:?}");
    }

    #[test]
    fn refuses_more_than_it_wants_to_read_and_less_than_was_claimed() {
        let claimed = [&MAGIC[..], &u64::MAX.to_le_bytes()].concat();
        assert!(matches!(with(&[("vda", &claimed)]).1, Err(DeviceError::TooLong { length: u64::MAX, .. })));
        let claimed = [&MAGIC[..], &(MAX_DEVICE as u64 - 15).to_le_bytes()].concat();
        assert!(matches!(with(&[("vda", &claimed)]).1, Err(DeviceError::TooLong { .. })));
        let short = &device(b"owner")[..18];
        assert!(matches!(with(&[("vda", short)]).1, Err(DeviceError::Io { action: "reading", .. })));
        assert!(matches!(with(&[("vda", MAGIC)]).1, Err(DeviceError::Io { action: "reading", .. })));
    }

    #[test]
    fn refuses_a_crowd() {
        let directory = tempfile::tempdir().unwrap();
        for name in (b'a'..=b'z').flat_map(|a| (b'a'..=b'c').map(move |b| [b'v', b'd', a, b])) {
            fs::write(directory.path().join(std::str::from_utf8(&name).unwrap()), b"").unwrap();
        }
        assert!(matches!(find_in(directory.path(), Duration::ZERO), Err(DeviceError::TooManyDisks)));
    }

    #[test]
    fn waits_for_a_late_device() {
        let directory = tempfile::tempdir().unwrap();
        let (unfinished, finished) = (directory.path().join("late"), directory.path().join("vda"));
        fs::write(&unfinished, device(b"owner")).unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| find_in(directory.path(), Duration::from_secs(30)));
            fs::hard_link(&unfinished, &finished).unwrap();
            assert_eq!(found.join().unwrap().unwrap(), device(b"owner"));
        });
    }
}
