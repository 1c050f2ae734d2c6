//! Guests that are not what the owner expects: each is found out by name, and never learns who the owner is.

use postern_evidence::Check;
use postern_model::{HostData, Measurement};
use postern_simtee::{GuestContext, Platform, Tcb, danger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::fixture::{OnceTee, Tee0, World, curious_server, wire};
use crate::{ConnectError, ExpectedInstance, connect};

/// Connects to a guest launched as `context`, which asks for the client's certificate and takes anything.
/// Gives the client's error and the certificates that the guest was shown.
async fn meet(world: &World, context: GuestContext) -> (Option<ConnectError>, usize) {
    let guest = world.guest_from(context);
    let (config, seen) = curious_server(guest.identity.certified.clone());
    let (ours, theirs) = wire();
    let server = tokio::spawn(async move {
        // Gone with the connection; it never answers the nonce.
        if let Ok(mut stream) = TlsAcceptor::from(config).accept(theirs).await {
            let _ = stream.read(&mut [0; 40]).await;
        }
    });
    let error = world.connect(ours).await.err();
    server.await.unwrap();
    (error, seen.certificates().len())
}

#[tokio::test]
async fn each_is_found_out_before_the_client_shows_its_certificate() {
    let world = World::new();
    let alter = |change: fn(&mut danger::ReportFields)| danger::alter(world.launch(), change);
    let old =
        danger::reissue_vcek(&world.platform, |vcek| vcek.tcb = Tcb { snp: 7, ..Tcb::CURRENT }).unwrap();
    let old = World { platform: old, ..World::new() }.launch();
    let foreign = World { platform: Platform::ephemeral().unwrap(), ..World::new() }.launch();
    let cases = [
        (Check::Measurement, alter(|f| f.measurement = Measurement::new([0; 48]))),
        (Check::HostData, alter(|f| f.host_data = HostData::new([0; 32]))),
        (Check::Tcb, alter(|f| f.policy |= danger::POLICY_DEBUG)),
        (Check::Tcb, alter(|f| f.policy |= danger::POLICY_MIGRATE)),
        (Check::Tcb, alter(|f| f.vmpl = 2)),
        (Check::Tcb, old),
        (Check::VendorChain, foreign),
        (Check::VendorChain, danger::with_certificates(world.launch(), vec![])),
    ];
    for (check, context) in cases {
        let (error, shown) = meet(&world, context).await;
        let error = error.unwrap();
        assert_eq!(error.check(), Some(check), "{error}");
        assert_eq!(shown, 0, "{check} failed, and yet the client showed its certificate");
    }
    // The same server with an honest guest is shown it: the cases above could have failed.
    let (error, shown) = meet(&world, world.launch()).await;
    assert_eq!(error.and_then(|error| error.check()), None);
    assert_eq!(shown, 1);
}

#[tokio::test]
async fn another_instance_than_last_time_is_found_out() {
    let world = World::new();
    let before = world.guest().identity.instance();
    let guest = world.guest();
    let mut expectation = world.expectation();
    expectation.instance = ExpectedInstance::Same(before);
    let (ours, theirs) = wire();
    let (client, server) =
        tokio::join!(connect(ours, &world.owner, &expectation), guest.acceptor.accept(theirs));
    assert_eq!(client.unwrap_err().check(), Some(Check::Instance));
    assert!(server.is_err());

    expectation.instance = ExpectedInstance::Same(guest.identity.instance());
    let (ours, theirs) = wire();
    let (client, _) = tokio::join!(connect(ours, &world.owner, &expectation), guest.acceptor.accept(theirs));
    client.unwrap();
}

#[tokio::test]
async fn a_guest_whose_tee_fails_says_that_it_has_no_evidence() {
    let world = World::new();
    let tee = OnceTee(Tee0(world.launch()), false.into());
    let guest = world.guest_with(std::sync::Arc::new(tee));
    let (ours, theirs) = wire();
    let (client, server) = tokio::join!(world.connect(ours), guest.acceptor.accept(theirs));
    assert!(matches!(client, Err(ConnectError::NoEvidence)));
    assert!(matches!(server, Err(crate::AcceptError::Evidence(_))));
}

#[tokio::test]
async fn a_server_of_another_protocol_is_named_so() {
    let world = World::new();
    let (ours, mut theirs) = wire();
    let server = tokio::spawn(async move {
        theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = theirs.read(&mut [0; 16]).await;
    });
    assert!(matches!(world.connect(ours).await, Err(ConnectError::Tls(_))));
    server.await.unwrap();

    let (ours, theirs) = wire();
    drop(theirs);
    assert!(matches!(world.connect(ours).await, Err(ConnectError::Io { .. })));
}

#[tokio::test]
async fn a_guest_that_speaks_tls_1_2_is_refused() {
    // ServerHello: record 3.3, version 3.3 without `supported_versions`, ECDHE-ECDSA-AES128-GCM-SHA256.
    let mut hello = vec![0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend([0x11; 32]);
    hello.extend([0, 0xc0, 0x2b, 0]);
    let world = World::new();
    let (ours, mut theirs) = wire();
    let server = tokio::spawn(async move {
        theirs.write_all(&hello).await.unwrap();
        let _ = theirs.read(&mut [0; 1024]).await;
    });
    let error = world.connect(ours).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(rustls::Error::PeerIncompatible(_))), "{error:?}");
    server.await.unwrap();
}
