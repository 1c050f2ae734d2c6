//! The client against guests that answer, answer late, answer nonsense, or go away.

use postern_api::{host::TtrpcRequest, ttrpc::response_frame};
use tokio::{
    io::{DuplexStream, duplex},
    net::UnixListener,
};

use super::*;

const SOON: Duration = Duration::from_secs(30);

fn connected() -> (HostClient, DuplexStream) {
    let (ours, theirs) = duplex(1 << 16);
    (HostClient::over(Box::new(ours)), theirs)
}

async fn read_request(guest: &mut DuplexStream) -> (u32, TtrpcRequest) {
    let mut header = [0; HEADER_LENGTH];
    guest.read_exact(&mut header).await.unwrap();
    let header = Header::decode(&header);
    assert_eq!(header.kind, FrameKind::Request);
    let mut body = vec![0; header.length as usize];
    guest.read_exact(&mut body).await.unwrap();
    (header.stream, TtrpcRequest::decode(body.as_slice()).unwrap())
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order() {
    let (client, mut guest) = connected();
    let guest = async {
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(read_request(&mut guest).await);
        }
        for (stream, request) in requests.into_iter().rev() {
            guest.write_all(&response_frame(stream, Ok(request.payload))).await.unwrap();
        }
        guest
    };
    let call = |byte| client.call(AGENT_SERVICE, "Echo", vec![byte], SOON);
    let (one, two, three, _guest) = tokio::join!(call(1), call(2), call(3), guest);
    assert_eq!((one, two, three), (Ok(vec![1]), Ok(vec![2]), Ok(vec![3])));
}

#[tokio::test]
async fn a_refusal_comes_with_its_code() {
    let (client, mut guest) = connected();
    let refuse = async {
        let (stream, request) = read_request(&mut guest).await;
        assert_eq!((request.service.as_str(), request.method.as_str()), (AGENT_SERVICE, "ExecProcess"));
        assert!(request.timeout_nano > 0);
        let refusal = response_frame(stream, Err((7, "refused".into())));
        guest.write_all(&refusal).await.unwrap();
    };
    let (answer, ()) = tokio::join!(client.call(AGENT_SERVICE, "ExecProcess", vec![], SOON), refuse);
    let status = answer.unwrap_err();
    assert_eq!(status, Status { code: 7, message: "refused".into() });
    assert_eq!(status.to_string(), "PERMISSION_DENIED (7): refused");
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_the_connection_lives() {
    let (client, mut guest) = connected();
    let late = client.call(AGENT_SERVICE, "Slow", vec![1], Duration::from_millis(1)).await;
    assert_eq!(late.unwrap_err().code, Status::DEADLINE_EXCEEDED);
    let guest = async {
        for _ in 0..2 {
            let (stream, request) = read_request(&mut guest).await;
            guest.write_all(&response_frame(stream, Ok(request.payload))).await.unwrap();
        }
        guest
    };
    let (answer, _guest) = tokio::join!(client.call(AGENT_SERVICE, "Fast", vec![2], SOON), guest);
    assert_eq!(answer, Ok(vec![2]));
}

#[tokio::test]
async fn the_end_of_the_connection_ends_every_call() {
    let (client, mut guest) = connected();
    let leave = async {
        read_request(&mut guest).await;
        drop(guest);
    };
    let (answer, ()) = tokio::join!(client.call(AGENT_SERVICE, "Check", vec![], SOON), leave);
    assert_eq!(answer.unwrap_err().code, Status::UNAVAILABLE);
    let next = client.call(AGENT_SERVICE, "Check", vec![], SOON).await;
    assert_eq!(next.unwrap_err().code, Status::UNAVAILABLE);
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_allocates_nothing() {
    let oversized =
        Header { length: u32::MAX, stream: 1, kind: FrameKind::Response, flags: 0 }.encode().to_vec();
    let data = Header { length: 0, stream: 1, kind: FrameKind::Other(3), flags: 0 }.encode().to_vec();
    let mut garbage = Header { length: 2, stream: 1, kind: FrameKind::Response, flags: 0 }.encode().to_vec();
    garbage.extend_from_slice(&[0xff, 0xff]);
    for nonsense in [oversized, data, garbage] {
        let (client, mut guest) = connected();
        let speak = async {
            read_request(&mut guest).await;
            guest.write_all(&nonsense).await.unwrap();
            guest
        };
        let (answer, _guest) = tokio::join!(client.call(AGENT_SERVICE, "Check", vec![], SOON), speak);
        assert_eq!(answer.unwrap_err().code, Status::UNAVAILABLE);
    }
}

#[tokio::test]
async fn calls_that_wait_have_a_bound() {
    let (client, _guest) = connected();
    let calls: Vec<_> =
        (0..MAX_CALLS).map(|call| client.calls.register(call as u32 * 2 + 1_000_001)).collect();
    assert!(calls.iter().all(Result::is_ok));
    let refused = client.call(AGENT_SERVICE, "Check", vec![], SOON).await;
    assert_eq!(refused.unwrap_err().code, Status::RESOURCE_EXHAUSTED);
}

#[tokio::test]
async fn connecting_waits_for_a_guest_that_is_not_up_yet() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v.sock");
    let address = VsockAddress::VhostUser { socket: socket.clone() };
    let device = async {
        let listener = UnixListener::bind(&socket).unwrap();
        // First nobody listens in the guest, then somebody does.
        drop(listener.accept().await.unwrap());
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"OK 1\n").await.unwrap();
        stream
    };
    let (client, _device) = tokio::join!(HostClient::connect(&address, 1024, SOON), device);
    client.unwrap();
    let never = VsockAddress::VhostUser { socket: dir.path().join("other.sock") };
    let error = HostClient::connect(&never, 1024, Duration::ZERO).await.unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
}
