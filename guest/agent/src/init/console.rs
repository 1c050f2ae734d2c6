//! The console: the one thing of the guest that the host reads. Phases go there, nothing else.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::OnceLock,
    time::Duration,
};

use super::{
    mounts::MountError,
    stamps::{Stamp, Stamps},
};

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Keeps the console for phases, and points the standard streams at /dev/null, so that nothing a library prints
/// reaches the host.
pub(super) fn take_over() -> Result<(), MountError> {
    // A kernel without any console is a good guest: then there is just nothing to see.
    if let Ok(console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = CONSOLE.set(console);
    }
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|source| MountError::new("opening", "/dev/null", source))?;
    let redirected = rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null));
    redirected
        .map_err(|source| MountError::new("redirecting the standard streams to", "/dev/null", source.into()))
}

/// One line on the console, such as `postern: ready`. `text` is a name of ours, never data.
pub fn phase(text: &'static str) {
    write_line(format_args!("postern: {text}\r\n"));
}

/// The steps of booting and the milliseconds each took: `postern: booted kernel 2910 mounts 3 …`.
pub fn boot_timeline(stamps: &Stamps) {
    let mut before = Duration::ZERO;
    let mut line = String::from("postern: booted");
    for Stamp { step, at } in stamps.iter() {
        let took = at.saturating_sub(before).as_millis();
        line.push_str(&format!(" {step} {took} ms,"));
        before = at;
    }
    let line = line.trim_end_matches(',');
    write_line(format_args!("{line}\r\n"));
}

/// The reason why this guest ends, for whoever runs the machine; only from before the owner's data is read.
pub(super) fn write_line(line: std::fmt::Arguments<'_>) {
    write_bytes(line.to_string().as_bytes());
}

/// The same, of a line that is there already: nothing but a system call.
pub(super) fn write_bytes(line: &[u8]) {
    if let Some(mut console) = CONSOLE.get() {
        // One write, so that lines of the kernel do not fall into the middle of it.
        let _ = console.write_all(line);
    }
}
