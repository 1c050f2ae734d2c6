//! Programs that are missing, or die.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::rig::{Guest, Rig};

fn script(rig: &Rig, text: &str) -> String {
    let path = rig.root.join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn probe_says_what_there_is() {
    let rig = Rig::new(Guest::Silent);
    let offer = rig.host(&["probe", "--output", "json"]).json();
    assert!(["tcg", "kvm"].contains(&offer["accelerator"].as_str().unwrap()));
    assert!(["vhost-user", "kernel"].contains(&offer["vsock"].as_str().unwrap()));
    assert_eq!(offer["machine"], "microvm");
    assert!(offer["tsc_khz"].as_u64().unwrap() > 100_000);
    let root = fs::read_to_string(offer["simulated_root"].as_str().unwrap()).unwrap();
    assert!(root.contains("BEGIN CERTIFICATE"));
    let again = rig.host(&["probe", "--output", "json"]).json();
    assert_eq!(again["simulated_root"], offer["simulated_root"]);
    assert_eq!(fs::read_to_string(again["simulated_root"].as_str().unwrap()).unwrap(), root);
}

#[test]
fn a_kvm_that_cannot_work_is_not_tried() {
    let rig = Rig::new(Guest::Silent);
    let offer = rig.host(&["probe", "--output", "json"]).json();
    let by_the_processor = ["kvm_intel", "kvm_amd"]
        .iter()
        .any(|module| std::path::Path::new("/sys/module").join(module).exists());
    if !by_the_processor {
        assert_eq!(offer["accelerator"], "tcg");
        assert!(offer["accelerator_reason"].as_str().unwrap().contains("kvm"));
    }
}

#[test]
fn a_missing_qemu_is_named_with_what_to_do() {
    let rig = Rig::new(Guest::Silent);
    let ran = rig.start(&["--qemu", "/no/such/qemu"]);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let output = rig.start_command("start", &[]).env("PATH", "/no/such").output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("qemu-system-x86_64 was not found"), "{stderr}");
    assert!(stderr.contains("hint: install it (apt-get install qemu-system-x86)"), "{stderr}");
    rig.assert_nothing_left();
}

#[test]
fn a_missing_vsock_helper_is_named() {
    let rig = Rig::new(Guest::Silent);
    let ran = rig.start(&["--vsock", "vhost-user", "--vsock-helper", "/no/such/helper"]);
    ran.assert_failed(5, "missing-program");
    rig.assert_nothing_left();
}

#[test]
fn a_vsock_helper_that_dies_is_quoted() {
    let rig = Rig::new(Guest::Silent);
    let helper = script(&rig, "echo no such option >&2; exit 2");
    let ran = rig.start(&["--vsock-helper", &helper]);
    ran.assert_failed(6, "vmm-ended");
    assert!(ran.stderr.contains("the vsock helper ended unexpectedly: exit status: 2"), "{}", ran.stderr);
    assert!(ran.stderr.contains("no such option"), "{}", ran.stderr);
    rig.assert_nothing_left();
}

#[test]
fn a_qemu_that_dies_is_quoted() {
    let rig = Rig::new(Guest::Silent);
    let qemu = script(&rig, "echo QEMU emulator version 9.9.9; echo out of luck >&2; exit 1");
    let ran = rig.start(&["--qemu", &qemu]);
    ran.assert_failed(6, "vmm-ended");
    assert!(ran.stderr.contains("QEMU said last: out of luck"), "{}", ran.stderr);
    rig.assert_nothing_left();
}

#[test]
fn a_qemu_that_cannot_boot_the_kernel_is_quoted() {
    let rig = Rig::new(Guest::NoKernel);
    let ran = rig.start(&[]);
    ran.assert_failed(6, "vmm-ended");
    assert!(ran.stderr.contains("kernel"), "{}", ran.stderr);
    rig.assert_nothing_left();
}

#[test]
fn a_port_that_is_taken_at_the_last_moment_is_a_port_in_use() {
    let rig = Rig::new(Guest::Silent);
    let refusal = "Could not set up host forwarding rule 'tcp:127.0.0.1:80-:50090'";
    let qemu =
        script(&rig, &format!("echo QEMU emulator version 9.9.9; echo \"qemu: {refusal}\" >&2; exit 1"));
    rig.start(&["--qemu", &qemu]).assert_failed(8, "port-in-use");
    rig.assert_nothing_left();
}

#[test]
fn help_and_completion_are_there() {
    let rig = Rig::new(Guest::Silent);
    let help = rig.host(&["--help"]);
    assert!(help.stdout.contains("Exit codes:") && help.stdout.contains("Examples:"), "{help:?}");
    for verb in ["probe", "start", "run", "stop", "ls", "inspect", "rm", "completion"] {
        let help = rig.host(&[verb, "--help"]);
        assert!(help.code == Some(0) && help.stdout.contains("Example"), "{verb}: {help:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(rig.host(&["completion", shell]).stdout.contains("postern-host"));
    }
    assert_eq!(rig.host(&["start", "demo", "--no-such-flag"]).code, Some(2));
    assert_eq!(
        rig.host(&["start", "demo", "--image", "x", "--init-data", "y"]).code,
        Some(2),
        "no default for --tee"
    );
}
