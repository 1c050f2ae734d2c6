//! Measures what is launched: the files as they are, the arguments as the kernel has them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::{Child, Command, Stdio},
};

use postern_launch::{
    Accelerator, Cpus, ImageManifest, LaunchSpec, Machine, MemoryMib, Mitigations, Network, PodShape,
    TeePlatform, Vsock, Wiring, image::ImageFile,
};

use super::*;

fn spec(dir: &Path) -> LaunchSpec {
    fs::write(dir.join("vmlinux"), b"kernel").unwrap();
    fs::write(dir.join("initramfs"), b"initramfs").unwrap();
    let image = ImageManifest {
        format: 1,
        kernel: ImageFile::describe(dir, "vmlinux").unwrap(),
        initramfs: ImageFile::describe(dir, "initramfs").unwrap(),
        cmdline: "console=ttyS0".into(),
        agent_version: "0".into(),
        kernel_release: "6.1".into(),
        kernel_profile: None,
    };
    let shape = PodShape {
        machine: Machine::Microvm,
        accelerator: Accelerator::Tcg,
        cpus: Cpus::new(1).unwrap(),
        memory_mib: MemoryMib::new(256).unwrap(),
        tsc_khz: Some(2_000_000),
        tee: TeePlatform::Simulated,
        mitigations: Mitigations::On,
    };
    let wiring = Wiring {
        qmp_socket: dir.join("qmp"),
        init_data_device: dir.join("initdata"),
        disks: Vec::new(),
        vsock: Vsock::Kernel { cid: 5 },
        network: Network::User { listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0) },
    };
    LaunchSpec::new(&image, dir, &shape, wiring).unwrap()
}

#[test]
fn what_is_launched_is_what_the_owner_expects() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path());
    let measured = measure_arguments(std::process::id(), &spec.qemu_args()).unwrap();
    assert_eq!(measured, spec.expected_measurement());
}

#[test]
fn another_kernel_or_command_line_is_measured_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path());
    let pid = std::process::id();

    let mut arguments = spec.qemu_args();
    let cmdline = arguments.iter_mut().find(|argument| argument.starts_with("console=")).unwrap();
    cmdline.push_str(" init=/bin/sh");
    assert_ne!(measure_arguments(pid, &arguments).unwrap(), spec.expected_measurement());

    fs::write(dir.path().join("vmlinux"), b"Kernel").unwrap();
    assert_ne!(measure_arguments(pid, &spec.qemu_args()).unwrap(), spec.expected_measurement());

    fs::remove_file(dir.path().join("vmlinux")).unwrap();
    assert!(matches!(measure_arguments(pid, &spec.qemu_args()), Err(MeasureError::File { .. })));
}

/// A process with given arguments that waits to be ended.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let child =
            Command::new("sh").args(["-c", "read _"]).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
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
fn arguments_are_the_kernels_word() {
    let process = Process::start(&["-append", "", "a b"]);
    assert_eq!(arguments(process.0.id()).unwrap(), ["-c", "read _", "-append", "", "a b"]);
}

#[test]
fn what_is_no_pods_qemu_is_not_measured() {
    // Beyond the largest process id of Linux (PID_MAX_LIMIT).
    assert!(matches!(measure_process(u32::MAX), Err(MeasureError::Process { .. })));
    let process = Process::start(&["-nographic"]);
    assert!(matches!(measure_process(process.0.id()), Err(MeasureError::Arguments { .. })));
}
