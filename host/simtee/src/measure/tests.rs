//! Measures a process that was started as a pod's QEMU is, and one that was not.

use std::process::{Child, Command, Stdio};

use super::*;

/// A process that carries QEMU's arguments and waits: what is measured is `/proc`, not what QEMU does with it.
struct Process(Child);

impl Process {
    fn start(arguments: &[String], directory: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", "read _", "qemu-system-x86_64"])
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_no_process_is_not_measured() {
    // Beyond the largest process id of Linux (PID_MAX_LIMIT).
    assert!(matches!(measure_process(u32::MAX), Err(MeasureError::Process { .. })));
}

#[test]
fn another_program_is_not_measured() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(&["-nographic".into()], dir.path());
    assert!(matches!(measure_process(process.0.id()), Err(MeasureError::Arguments { .. })));
}
