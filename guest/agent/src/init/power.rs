//! Ending the guest: on purpose, after a panic, and when booting takes longer than it may.

use std::{
    error::Error,
    io, panic,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::system::{RebootCommand, reboot};

use super::{BootError, console};
use crate::sys;

/// Ends the guest. As an ordinary process (never process 1) it only ends the process.
pub fn poweroff() -> ! {
    if std::process::id() != 1 {
        std::process::exit(0);
    }
    console::phase("power off");
    rustix::fs::sync();
    // Without ACPI the kernel cannot switch the machine off and would halt for ever; there a reset ends it, because
    // the VMM is started with -no-reboot.
    let command = if Path::new("/sys/firmware/acpi/tables/FACP").exists() {
        RebootCommand::PowerOff
    } else {
        RebootCommand::Restart
    };
    let _ = reboot(command);
    // Process 1 that ends panics the kernel, which resets the machine (kernel.panic = -1).
    std::process::exit(1);
}

/// Says on the console why the guest cannot boot, and ends it. A `BootError` holds names of ours and of devices only.
pub fn fail(error: &BootError) -> ! {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    console::write_line(format_args!("postern: cannot boot: {text}\r\n"));
    poweroff();
}

/// Says on the console why the guest ends, and ends it. `why` holds nothing of an owner.
pub fn give_up(why: &str) -> ! {
    // Whoever reads the console takes a line for a whole: a parser's explanation goes on over several.
    let why = why.lines().next().unwrap_or_default();
    console::write_line(format_args!("postern: ends: {why}\r\n"));
    poweroff();
}

/// Makes a panic anywhere end the guest. The console gets the place and not the message, which may hold data.
pub fn end_on_panic() {
    static ENDING: AtomicBool = AtomicBool::new(false);
    panic::set_hook(Box::new(|info| {
        if ENDING.swap(true, Ordering::SeqCst) {
            return;
        }
        match info.location() {
            Some(place) => console::write_line(format_args!(
                "postern: internal error at {}:{}\r\n",
                place.file(),
                place.line()
            )),
            None => console::phase("internal error"),
        }
        poweroff();
    }));
}

/// Ends the guest unless it is disarmed in time. A timer and, where there are any, no thread: that
/// would be half of what it watches over.
#[derive(Debug)]
pub(super) struct Watchdog(sys::Timer);

impl Watchdog {
    pub(super) fn arm(within: Duration) -> io::Result<Self> {
        sys::Timer::start(within, overdue).map(Self)
    }

    pub(super) fn disarm(self) {
        self.0.stop();
    }
}

/// Interrupts whatever is slow, so it only makes system calls.
extern "C" fn overdue(_: libc::c_int) {
    console::write_bytes(b"postern: booting took too long\r\n");
    // What could be written to a disk is not there yet.
    let _ = reboot(RebootCommand::Restart);
}
