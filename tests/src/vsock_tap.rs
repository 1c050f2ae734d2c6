//! A wiretap on a VM's vsock: a program that stands in for vhost-device-vsock, runs the real one behind itself, and keeps
//! a copy of every byte between the guest and whoever on the host it speaks with, its platform included.
//!
//! ```text
//! host programs -- vsock.sock -->      tap -- tapped.sock -->      vhost-device-vsock -- guest
//! platform      <-- vsock.sock_1025 -- tap <-- tapped.sock_1025 --
//! ```

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, bail};
use postern_model::sim_device::VSOCK_PORT;

use crate::{programs, sys};

/// First argument of the program that is the tap.
pub const WORD: &str = "vsock-tap";
/// Where the real device listens, beside where it was told to.
const INNER: &str = "tapped.sock";
const OF_HOST: &str = "host.bytes";
const OF_PLATFORM: &str = "platform.bytes";

/// A `postern-host` whose pods are tapped.
#[derive(Debug)]
pub struct Tap {
    folder: PathBuf,
}

impl Tap {
    /// Makes it in `folder`; `program` calls [`run`] when its first argument is [`WORD`].
    pub fn install(folder: &Path, program: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let helper = folder.join("vhost-device-vsock");
        let real = programs::program("vhost-device-vsock")?;
        programs::write_script(
            &helper,
            &format!(
                "exec '{}' {WORD} '{}' '{}' \"$@\"",
                program.display(),
                folder.display(),
                real.display()
            ),
        )?;
        let host = programs::program("postern-host")?;
        programs::write_script(
            &folder.join("postern-host"),
            &format!(
                "[ \"$1\" != start ] || set -- \"$@\" --vsock-helper '{}'\nexec '{}' \"$@\"",
                helper.display(),
                host.display()
            ),
        )?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The `postern-host` to use.
    pub fn host(&self) -> PathBuf {
        self.folder.join("postern-host")
    }

    /// All bytes so far between the guest and host programs that connected to it.
    pub fn of_host(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(self.folder.join(OF_HOST)).context("nothing was tapped of the host's connections")
    }

    /// All bytes so far between the guest and the platform that signs its evidence.
    pub fn of_platform(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(self.folder.join(OF_PLATFORM))
            .context("nothing was tapped of the platform's connection")
    }
}

/// The tap: `RECORD-FOLDER REAL-DEVICE --vm guest-cid=N,socket=S,uds-path=P`, in the folder of the sockets. Ends with the
/// real device.
pub fn run(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let (Some(folder), Some(device)) = (args.next(), args.next()) else { bail!("{WORD} FOLDER DEVICE ARGS") };
    let mut args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let wiring = args.iter_mut().find(|arg| arg.contains("uds-path=")).context("no uds-path")?;
    let outer = wiring.rsplit("uds-path=").next().unwrap_or_default().to_owned();
    *wiring = wiring.replace(&format!("uds-path={outer}"), &format!("uds-path={INNER}"));
    let port = |socket: &str| format!("{socket}_{VSOCK_PORT}");
    relay(&outer, INNER.into(), &Path::new(&folder).join(OF_HOST))?;
    relay(&port(INNER), port(&outer), &Path::new(&folder).join(OF_PLATFORM))?;
    let mut command = Command::new(device);
    command.args(args);
    sys::die_with_parent(&mut command);
    let status = command.spawn().context("cannot start the real device")?.wait()?;
    bail!("the real device ended: {status}")
}

/// Passes on what connects to `listen` to `target`, and keeps a copy in `record`.
fn relay(listen: &str, target: String, record: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let record = OpenOptions::new().create(true).append(true).open(record)?;
    let record = Arc::new(Mutex::new(record));
    thread::spawn(move || {
        for from in listener.incoming().flatten() {
            // A connection that leads nowhere is closed, which is what the device does.
            let Ok(to) = UnixStream::connect(&target) else { continue };
            for (from, to) in [(&from, &to), (&to, &from)] {
                let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                let record = Arc::clone(&record);
                thread::spawn(move || carry(from, to, &record));
            }
        }
    });
    Ok(())
}

fn carry(mut from: UnixStream, mut to: UnixStream, record: &Mutex<File>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // Kept before it is passed on: what somebody has received is on record.
        let kept = record.lock().unwrap_or_else(PoisonError::into_inner).write_all(&buffer[..count]);
        if kept.and_then(|()| to.write_all(&buffer[..count])).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
