//! The state directory: names are taken once, a lock says who is alive, and nothing is lost or left.

use postern_launch::{Accelerator, Cpus, Machine, MemoryMib, Mitigations, PodShape, TeePlatform};
use postern_model::HostData;

use super::*;
use crate::{process::ProcessId, vsock::VsockAddress};

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("state"));
    (dir, home)
}

fn record(name: &str) -> PodRecord {
    let shape = PodShape {
        machine: Machine::Microvm,
        accelerator: Accelerator::Tcg,
        cpus: Cpus::new(1).unwrap(),
        memory_mib: MemoryMib::new(256).unwrap(),
        tsc_khz: Some(1),
        tee: TeePlatform::Simulated,
        mitigations: Mitigations::On,
    };
    let supervisor = ProcessId::of(std::process::id()).unwrap();
    PodRecord::new(name.parse().unwrap(), supervisor, "/image".into(), shape, HostData::new([1; 32]))
}

fn name(name: &str) -> PodName {
    name.parse().unwrap()
}

#[test]
fn a_record_reads_back() {
    let (_dir, home) = home();
    let mut pod = home.create(record("demo")).unwrap();
    pod.record.vsock = Some(VsockAddress::VhostUser { socket: "/x/vsock.sock".into() });
    pod.record.boot_millis.push(("vmm".into(), 90));
    pod.save().unwrap();
    assert_eq!(home.pod(&name("demo")).unwrap().record().unwrap(), pod.record);
    assert!(!pod.path("state.new").exists());
}

#[test]
fn a_name_is_taken_once_and_the_first_keeps_it() {
    let (_dir, home) = home();
    let first = home.create(record("demo")).unwrap();
    first.write("console.log", b"precious").unwrap();
    let error = home.create(record("demo")).unwrap_err();
    assert_eq!(error.to_string(), "a pod named \"demo\" exists already; it is starting");
    assert_eq!(fs::read(first.path("console.log")).unwrap(), b"precious");
}

#[test]
fn a_pod_is_running_until_its_supervisor_is_gone() {
    let (_dir, home) = home();
    let mut pod = home.create(record("demo")).unwrap();
    pod.record.status = PodStatus::Running;
    pod.save().unwrap();
    assert_eq!(home.pod(&name("demo")).unwrap().status().unwrap(), PodStatus::Running);
    assert!(matches!(home.remove(&name("demo")), Err(StateError::Running(_))));
    // The kernel drops the lock with the process.
    drop(pod);
    assert_eq!(home.pod(&name("demo")).unwrap().status().unwrap(), PodStatus::Crashed);
    home.remove(&name("demo")).unwrap();
    assert!(matches!(home.pod(&name("demo")), Err(StateError::Unknown(_))));
}

#[test]
fn retiring_keeps_logs_and_removes_sockets() {
    let (_dir, home) = home();
    let pod = home.create(record("demo")).unwrap();
    pod.write("console.log", b"words").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(pod.path("qmp.sock")).unwrap();
    pod.retire("stopped".into()).unwrap();
    drop(socket);
    let pod = home.pod(&name("demo")).unwrap();
    assert_eq!(pod.status().unwrap(), PodStatus::Ended);
    assert!(!pod.directory().join("qmp.sock").exists());
    assert!(pod.directory().join("console.log").exists());
    home.remove(&name("demo")).unwrap();
    assert_eq!(home.list().unwrap(), []);
}

#[test]
fn removing_ends_what_a_supervisor_left_behind() {
    let (_dir, home) = home();
    let mut orphan = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let process = ProcessId::of(orphan.id()).unwrap();
    let mut pod = home.create(record("demo")).unwrap();
    // A process that merely got the pid of one of ours is left alone.
    let innocent = ProcessId { start_time: 1, ..ProcessId::of(std::process::id()).unwrap() };
    pod.record.children.push(ChildRecord { role: "qemu".into(), process });
    pod.record.children.push(ChildRecord { role: "vsock".into(), process: innocent });
    pod.save().unwrap();
    drop(pod);
    home.remove(&name("demo")).unwrap();
    assert!(!orphan.wait().unwrap().success());
}

#[test]
fn damage_is_an_error_and_not_a_loss() {
    let (_dir, home) = home();
    let pod = home.create(record("demo")).unwrap();
    pod.write("state.json", b"{}").unwrap();
    drop(pod);
    let pod = home.pod(&name("demo")).unwrap();
    assert!(matches!(pod.record(), Err(StateError::Malformed { .. })));
    assert_eq!(pod.status().unwrap(), PodStatus::Crashed);
    home.remove(&name("demo")).unwrap();
}

#[test]
fn state_goes_where_the_environment_says() {
    let from = |own: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
        Home::from_variables(own.map(Into::into), xdg.map(Into::into), home.map(Into::into))
            .map(|home| home.root)
    };
    assert_eq!(from(Some("/own"), Some("/xdg"), Some("/home")).unwrap(), Path::new("/own"));
    assert_eq!(from(None, Some("/xdg"), Some("/home")).unwrap(), Path::new("/xdg/postern-host"));
    assert_eq!(from(None, None, Some("/home")).unwrap(), Path::new("/home/.local/state/postern-host"));
    assert!(matches!(from(None, None, None), Err(StateError::NoPlace)));
}

#[test]
fn a_place_that_is_no_directory_is_named() {
    let (dir, _) = home();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Home::at(file.join("state")).create(record("demo")).unwrap_err();
    assert!(matches!(error, StateError::Io { action: "create", .. }), "{error}");
}
