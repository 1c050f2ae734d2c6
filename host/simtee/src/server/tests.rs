//! The device at its socket: answers its holder, refuses everybody else, for good.

use postern_model::{
    HostData, Measurement,
    sim_device::{ANSWER_HEADER_LENGTH, decode_answer_header, decode_length, encode_request},
};

use super::*;
use crate::platform::{Launch, Platform};

struct Fixture {
    _server: SimServer,
    dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("tee")).unwrap();
    let launch = Launch::new(Measurement::new([1; 48]), HostData::new([2; 32]));
    let guest = Platform::ephemeral().unwrap().launch(launch).unwrap();
    Fixture { _server: serve(listener, guest).unwrap(), dir }
}

impl Fixture {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("tee")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }
}

fn ask(stream: &mut UnixStream, report_data: &[u8; 64]) -> io::Result<Vec<u8>> {
    stream.write_all(&encode_request(report_data))?;
    let mut header = [0; ANSWER_HEADER_LENGTH];
    stream.read_exact(&mut header)?;
    let mut report = vec![0; decode_answer_header(&header).map_err(io::Error::other)?];
    stream.read_exact(&mut report)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut certificates = vec![0; decode_length(length).map_err(io::Error::other)?];
    stream.read_exact(&mut certificates)?;
    Ok(report)
}

#[test]
fn the_holder_is_answered_again_and_again() {
    let fixture = fixture();
    let mut holder = fixture.connect();
    for byte in 0..3 {
        let report = ask(&mut holder, &[byte; 64]).unwrap();
        assert_eq!(report[0x50..0x90], [byte; 64]);
    }
}

#[test]
fn nobody_else_gets_the_device() {
    let fixture = fixture();
    let mut holder = fixture.connect();
    ask(&mut holder, &[0; 64]).unwrap();
    assert!(ask(&mut fixture.connect(), &[1; 64]).is_err(), "while it is held");
    ask(&mut holder, &[2; 64]).unwrap();
    drop(holder);
    assert!(ask(&mut fixture.connect(), &[3; 64]).is_err(), "after it was");
}

#[test]
fn a_connection_that_never_asked_gives_way() {
    let fixture = fixture();
    drop(fixture.connect());
    let abandoned = fixture.connect();
    let mut holder = fixture.connect();
    ask(&mut holder, &[0; 64]).unwrap();
    drop(abandoned);
    ask(&mut holder, &[1; 64]).unwrap();
    assert!(ask(&mut fixture.connect(), &[2; 64]).is_err(), "once it has answered");
}

#[test]
fn nonsense_ends_the_connection() {
    let fixture = fixture();
    let mut holder = fixture.connect();
    holder.write_all(&[b'x'; REQUEST_LENGTH]).unwrap();
    assert_eq!(holder.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn dropping_the_server_ends_it() {
    let fixture = fixture();
    let mut holder = fixture.connect();
    ask(&mut holder, &[0; 64]).unwrap();
    drop(fixture._server);
    assert_eq!(holder.read(&mut [0; 1]).unwrap(), 0);
}
