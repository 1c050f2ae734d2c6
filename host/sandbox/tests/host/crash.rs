//! Supervisors that are killed: nothing outlives them, and what they leave is found.

use rustix::process::Signal;

use crate::rig::{Guest, Rig, SOON};
use postern_sandbox::{Home, process::ProcessId, state::PodRecord};

fn record(rig: &Rig) -> PodRecord {
    Home::at(rig.state()).pod(&"demo".parse().unwrap()).unwrap().record().unwrap()
}

#[track_caller]
fn is_gone(process: ProcessId) {
    if let Some(running) = process.open().unwrap() {
        assert!(running.wait(SOON).unwrap(), "{process:?} is still there");
    }
}

/// A pod whose supervisor was killed when the guest was running.
fn crashed() -> Rig {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("run");
    begun.reaches("kernel");
    let children: Vec<_> = record(&rig).children.into_iter().map(|child| child.process).collect();
    assert!(!children.is_empty() && children.iter().all(|child| child.open().unwrap().is_some()));
    begun.signal(Signal::KILL);
    begun.ends();
    children.into_iter().for_each(is_gone);
    rig
}

#[test]
fn children_die_with_their_supervisor_and_cleanup_removes_the_rest() {
    let rig = crashed();
    assert_eq!(rig.host(&["inspect", "demo", "--output", "json"]).json()["status"], "crashed");
    let again = rig.start(&[]);
    again.assert_failed(4, "pod-exists");
    assert!(again.stderr.contains("postern-host rm demo"), "{}", again.stderr);
    assert_eq!(rig.host(&["cleanup"]).stdout, "demo: removed\n");
    rig.assert_nothing_left();
}

#[test]
fn a_crashed_pod_can_be_stopped_and_removed_like_any_other() {
    let rig = crashed();
    assert_eq!(rig.host(&["stop", "demo"]).stdout, "demo: stopped\n");
    let pod = rig.host(&["inspect", "demo", "--output", "json"]).json();
    assert_eq!(
        (pod["status"].as_str(), pod["end"].as_str()),
        (Some("ended"), Some("its supervisor had crashed"))
    );
    let left: Vec<_> =
        std::fs::read_dir(rig.pod("demo")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("sock")), "{left:?}");
    // What the guest said last is still there to be read.
    assert_eq!(std::fs::read_to_string(rig.pod("demo").join("console.log")).unwrap(), "postern: up\n");
    assert_eq!(rig.host(&["stop", "demo"]).stdout, "demo: had ended already\n");
    assert_eq!(rig.host(&["rm", "demo"]).stdout, "demo: removed\n");
    rig.assert_nothing_left();
}

#[test]
fn a_qemu_that_is_killed_ends_the_start() {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("start");
    begun.reaches("kernel");
    let qemu = record(&rig).children.into_iter().find(|child| child.role == "qemu").unwrap().process;
    qemu.open().unwrap().unwrap().signal(Signal::KILL).unwrap();
    begun.reaches("failed");
    assert_eq!(begun.ends().code(), Some(6));
    rig.assert_nothing_left();
}

#[test]
fn a_vsock_helper_that_is_killed_ends_the_start() {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("start");
    begun.reaches("kernel");
    let helper = record(&rig).children.into_iter().find(|child| child.role == "vsock").unwrap().process;
    helper.open().unwrap().unwrap().signal(Signal::KILL).unwrap();
    begun.reaches("failed");
    assert_eq!(begun.ends().code(), Some(6));
    rig.assert_nothing_left();
}

#[test]
fn a_start_that_is_killed_takes_its_pod_with_it() {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("start");
    begun.reaches("kernel");
    let supervisor = record(&rig).supervisor;
    begun.signal(Signal::KILL);
    begun.ends();
    is_gone(supervisor);
    rig.assert_nothing_left();
}
