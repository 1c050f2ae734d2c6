//! What is meant to happen: both ends meet, know each other, and talk.

use postern_evidence::{
    Check, EvidenceSource, RootKind,
    binding::{self, Purpose},
};
use postern_model::Role;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::fixture::{DAY, Tee0, World, now, wire};
use crate::{ClientIdentity, ClientStream, ExpectedInstance, OwnerCa, ServerStream, Validity, connect};

/// What hyper and tonic ask of a stream.
fn assert_stream<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(_: &T) {}

#[tokio::test]
async fn an_owner_and_a_guest_meet() {
    let world = World::new();
    let guest = world.guest();
    let instance = guest.identity.instance();
    let (ours, theirs) = wire();
    let server = tokio::spawn(async move {
        let (mut stream, peer): (ServerStream<_>, _) = guest.acceptor.accept(theirs).await.unwrap();
        assert_stream(&stream);
        let mut message = vec![0; 1 << 20];
        stream.read_exact(&mut message).await.unwrap();
        stream.write_all(&message).await.unwrap();
        stream.shutdown().await.unwrap();
        peer
    });
    let (mut stream, attested): (ClientStream<_>, _) = world.connect(ours).await.unwrap();
    assert_stream(&stream);
    assert_eq!(attested.instance(), instance);
    assert_eq!(attested.root_kind(), RootKind::Simulated);
    let checks: Vec<Check> = attested.checks().iter().map(|(check, _)| *check).collect();
    assert_eq!(checks, Check::ALL);

    let message: Vec<u8> = (0..1 << 20).map(|i: u32| (i >> 3) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let (written, read) = tokio::join!(writer.write_all(&message), async {
        let mut echo = Vec::new();
        reader.read_to_end(&mut echo).await.map(|_| echo)
    });
    written.unwrap();
    assert_eq!(read.unwrap(), message);
    let peer = server.await.unwrap();
    assert_eq!((peer.name.as_str(), peer.role), ("alice", Role::Operator));
}

#[tokio::test]
async fn over_tcp_and_a_second_time_it_is_the_same_instance() {
    let world = World::new();
    let guest = world.guest();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (io, _) = listener.accept().await.unwrap();
            guest.acceptor.accept(io).await.unwrap();
        }
    });
    let mut expectation = world.expectation();
    for _ in 0..2 {
        let io = TcpStream::connect(address).await.unwrap();
        let (_, attested) = connect(io, &world.owner, &expectation).await.unwrap();
        expectation.instance = ExpectedInstance::Same(attested.instance());
    }
    server.await.unwrap();
}

#[tokio::test]
async fn an_open_tunnel_is_verified_again() {
    let world = World::new();
    let context = world.launch();
    let guest = world.guest_from(context.clone());
    let (ours, theirs) = wire();
    let (client, server) = tokio::join!(world.connect(ours), guest.acceptor.accept(theirs));
    let ((_, attested), (_, peer)) = (client.unwrap(), server.unwrap());

    let nonce = [9; 32];
    let expectation = world.expectation();
    let answer = |nonce, purpose| {
        let report_data = binding::session(nonce, &peer.exporter, purpose);
        Tee0(context.clone()).evidence(&report_data).unwrap()
    };
    attested.verify_again(&answer(&nonce, Purpose::Verify), &nonce, &expectation).unwrap();
    for stale in [answer(&[8; 32], Purpose::Verify), answer(&nonce, Purpose::Session)] {
        let failure = attested.verify_again(&stale, &nonce, &expectation).unwrap_err();
        assert_eq!(failure.check(), Check::SessionBinding);
    }
}

#[tokio::test]
async fn every_role_arrives() {
    let world = World::new();
    let guest = world.guest();
    for role in Role::ALL {
        let identity = world.ca.issue("bob", role, Validity::starting(now(), DAY)).unwrap();
        let (ours, theirs) = wire();
        let expectation = world.expectation();
        let (client, server) =
            tokio::join!(connect(ours, &identity, &expectation), guest.acceptor.accept(theirs));
        client.unwrap();
        assert_eq!(server.unwrap().1.role, role);
    }
}

#[test]
fn identities_survive_their_files() {
    let world = World::new();
    let ca = OwnerCa::from_pem(world.ca.certificate_pem().as_bytes(), world.ca.key_pem().expose().as_bytes())
        .unwrap();
    assert_eq!(ca.certificate_der(), world.ca.certificate_der());
    assert_eq!(ca.validity(), world.ca.validity());
    let issued = ca.issue("carol", Role::Auditor, Validity::starting(now(), DAY)).unwrap();
    let read =
        ClientIdentity::from_pem(issued.certificate_pem().as_bytes(), issued.key_pem().expose().as_bytes())
            .unwrap();
    assert_eq!((read.name(), read.role()), ("carol", Role::Auditor));
    assert!(read.validity().contains(now()) && !read.validity().contains(now() + 2 * DAY.as_secs()));

    // The certificate of one with the key of another.
    let other = ca.issue("dave", Role::Viewer, Validity::starting(now(), DAY)).unwrap();
    assert!(
        ClientIdentity::from_pem(issued.certificate_pem().as_bytes(), other.key_pem().expose().as_bytes())
            .is_err()
    );
    assert!(OwnerCa::from_pem(ca.certificate_pem().as_bytes(), other.key_pem().expose().as_bytes()).is_err());
    // A client is no authority, and an authority no client.
    assert!(
        OwnerCa::from_pem(other.certificate_pem().as_bytes(), other.key_pem().expose().as_bytes()).is_err()
    );
    assert!(
        ClientIdentity::from_pem(ca.certificate_pem().as_bytes(), ca.key_pem().expose().as_bytes()).is_err()
    );
}

#[test]
fn bad_identities_are_refused_with_a_reason() {
    let ca = World::new().ca;
    for name in ["", "a\nb", "a/b", &"x".repeat(65)] {
        assert!(ca.issue(name, Role::Viewer, Validity::starting(now(), DAY)).is_err(), "{name:?}");
    }
    let backwards = Validity { not_before: 2, not_after: 1 };
    assert!(ca.issue("x", Role::Viewer, backwards).is_err());
    let error = ClientIdentity::from_pem(b"nonsense", b"nonsense").unwrap_err();
    assert_eq!(error.to_string(), "client certificate is not a PEM CERTIFICATE");
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}
