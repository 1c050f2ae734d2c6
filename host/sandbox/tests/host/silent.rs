//! Guests that run and never answer: deadlines, interruption, names and ports that are taken.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::rig::{Guest, Rig};

#[test]
fn a_guest_that_never_answers_is_given_up() {
    let rig = Rig::new(Guest::Silent);
    let ran = rig.start(&["--deadline", "3"]);
    ran.assert_failed(7, "guest-silent");
    assert_eq!(ran.stages(), ["vmm", "kernel", "failed"]);
    assert!(ran.stderr.contains("its console said last: postern: up"), "{}", ran.stderr);
    rig.assert_nothing_left();
}

#[test]
fn the_same_on_q35_and_in_a_directory_with_a_long_name() {
    let rig = Rig::below(&"long/".repeat(30), Guest::Silent);
    let ran = rig.start(&["--deadline", "5", "--machine", "q35"]);
    ran.assert_failed(7, "guest-silent");
    assert_eq!(ran.stages(), ["vmm", "kernel", "failed"]);
    rig.assert_nothing_left();
}

#[test]
fn a_guest_that_crashes_without_a_word_ends_the_start() {
    let rig = Rig::new(Guest::Crashes);
    let ran = rig.start(&[]);
    ran.assert_failed(15, "guest-panicked");
    assert!(ran.stderr.contains("gave up before it could say why"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--memory"), "{}", ran.stderr);
    rig.assert_nothing_left();
}

#[test]
fn an_interrupted_start_takes_everything_down() {
    for (verb, signal) in [("start", Signal::INT), ("start", Signal::TERM), ("run", Signal::INT)] {
        let rig = Rig::new(Guest::Silent);
        let mut begun = rig.begin(verb);
        begun.reaches("kernel");
        begun.signal(signal);
        begun.reaches("failed");
        assert_eq!(begun.ends().code(), Some(130));
        rig.assert_nothing_left();
    }
}

#[test]
fn a_pod_can_be_stopped_while_it_starts() {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("start");
    begun.reaches("vmm");
    let listed = rig.host(&["ls", "--output", "json"]).json();
    assert_eq!(listed[0]["status"], "starting");
    let ran = rig.host(&["stop", "demo"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "demo: stopped\n"));
    assert_eq!(begun.ends().code(), Some(130));
    rig.assert_nothing_left();
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_pod_goes_on() {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("start");
    begun.reaches("kernel");
    let second = rig.start(&[]);
    second.assert_failed(4, "pod-exists");
    assert!(second.stderr.contains("it is starting"), "{}", second.stderr);
    let removed = rig.host(&["rm", "demo"]);
    assert_eq!(removed.code, Some(12), "{removed:?}");
    assert_eq!(rig.host(&["inspect", "demo", "--output", "json"]).json()["status"], "starting");
    begun.signal(Signal::INT);
    assert_eq!(begun.ends().code(), Some(130));
    rig.assert_nothing_left();
}

#[test]
fn a_port_that_is_taken_is_refused_and_its_owner_goes_on() {
    let rig = Rig::new(Guest::Silent);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ran = rig.start(&["--listen", &address.to_string()]);
    ran.assert_failed(8, "port-in-use");
    assert!(ran.stderr.contains(&format!("{address} is in use")), "{}", ran.stderr);
    assert!(ran.stderr.contains("--listen 127.0.0.1:0"), "{}", ran.stderr);
    rig.assert_nothing_left();
    std::net::TcpStream::connect(address).unwrap();
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let rig = Rig::new(Guest::Silent);
    let ran = rig.start(&["--listen", "192.0.2.1:0"]);
    ran.assert_failed(8, "port-in-use");
    rig.assert_nothing_left();
}

#[test]
fn any_free_port_is_reported() {
    let rig = Rig::new(Guest::Silent);
    let mut begun = rig.begin("start");
    begun.reaches("vmm");
    let pod = rig.host(&["inspect", "demo", "--output", "json"]).json();
    let endpoint = pod["endpoint"].as_str().unwrap();
    let port: u16 = endpoint.strip_prefix("tcp://127.0.0.1:").unwrap().parse().unwrap();
    // QEMU listens there.
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(pod["measurement"].as_str().unwrap().len(), 96);
    begun.signal(Signal::TERM);
    begun.ends();
}
