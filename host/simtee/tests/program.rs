//! `postern-simtee` as a program: one root per state directory, one guest per socket, clear refusals.

#![allow(clippy::unwrap_used, reason = "a test program: a failed step is a failed test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use postern_model::sim_device::{ANSWER_HEADER_LENGTH, decode_answer_header, encode_request};

fn simtee() -> Command {
    Command::new(env!("CARGO_BIN_EXE_postern-simtee"))
}

fn root(state: &Path) -> Output {
    simtee().arg("root").arg("--state").arg(state).output().unwrap()
}

fn serve(dir: &Path) -> Command {
    let mut command = simtee();
    command
        .args(["serve", "--measurement", &"ab".repeat(48), "--host-data", &"cd".repeat(32)])
        .args(["--listen", &format!("unix://{}", dir.join("tee").display())])
        .arg("--state")
        .arg(dir.join("state"));
    command
}

/// A server that says that it listens.
struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Self {
        let mut child = serve(dir).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening on unix://{}\n", dir.join("tee").display()));
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_state_directory_has_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let (one, again) = (root(&dir.path().join("a")), root(&dir.path().join("a")));
    assert!(one.status.success());
    assert!(one.stdout.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert_eq!(one.stdout, again.stdout);
    assert_ne!(one.stdout, root(&dir.path().join("b")).stdout);
}

/// Asks for a report about the guest, over `[7; 64]`.
fn report(dir: &Path) -> Vec<u8> {
    let mut stream = UnixStream::connect(dir.join("tee")).unwrap();
    stream.write_all(&encode_request(&[7; 64])).unwrap();
    let mut header = [0; ANSWER_HEADER_LENGTH];
    stream.read_exact(&mut header).unwrap();
    let mut report = vec![0; decode_answer_header(&header).unwrap()];
    stream.read_exact(&mut report).unwrap();
    report
}

#[test]
fn serves_reports_about_the_guest_it_was_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let report = report(dir.path());
    assert_eq!(report[0x50..0x90], [7; 64]);
    assert_eq!(report[0x90..0xc0], [0xab; 48]);
    assert_eq!(report[0xc0..0xe0], [0xcd; 32]);
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let second = serve(dir.path()).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("somebody listens there already"));
    report(dir.path());
    drop(server);
    Server::start(dir.path());
}

#[test]
fn bad_arguments_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let bad = |argument: &str| {
        let output = serve(dir.path()).args(["--measurement", argument]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(bad("00").contains("--measurement"));
    let relative = simtee().args(["serve", "--listen", "unix://tee"]).output().unwrap();
    assert!(String::from_utf8_lossy(&relative.stderr).contains("absolute path"));
}
