//! Peers that stop talking: every wait ends by itself. Time is tokio's, and does not pass outside.

use std::sync::Arc;

use tokio::{io::AsyncReadExt, time::Instant};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::fixture::{World, any_name, careless_client, curious_server, wire};
use crate::{AcceptError, ConnectError, client, server};

#[tokio::test(start_paused = true)]
async fn a_client_gives_up_on_a_silent_guest() {
    let world = World::new();
    let (ours, _theirs) = wire();
    let start = Instant::now();
    let error = world.connect(ours).await.unwrap_err();
    assert!(matches!(error, ConnectError::Deadline { stage: client::Stage::Handshake, .. }), "{error}");
    assert!(start.elapsed() <= client::HANDSHAKE_DEADLINE * 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_up_on_a_guest_without_fresh_evidence() {
    let world = World::new();
    let guest = world.guest();
    let (config, _) = curious_server(guest.identity.certified.clone());
    let (ours, theirs) = wire();
    let silent = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(config).accept(theirs).await.unwrap();
        let mut nonce = [0; 40];
        stream.read_exact(&mut nonce).await.unwrap();
        let _ = stream.read(&mut nonce).await;
    });
    let error = world.connect(ours).await.unwrap_err();
    assert!(matches!(error, ConnectError::Deadline { stage: client::Stage::Evidence, .. }), "{error}");
    silent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_guest_gives_up_on_a_silent_client() {
    let world = World::new();
    let guest = world.guest();
    let (_ours, theirs) = wire();
    let start = Instant::now();
    let error = guest.acceptor.accept(theirs).await.unwrap_err();
    assert!(matches!(error, AcceptError::Deadline { .. }), "{error}");
    assert!(start.elapsed() <= server::HANDSHAKE_DEADLINE * 2);
}

#[tokio::test(start_paused = true)]
async fn a_guest_gives_up_on_a_client_without_a_challenge() {
    let world = World::new();
    let guest = world.guest();
    let (ours, theirs) = wire();
    let connector = TlsConnector::from(Arc::new(careless_client(Some(world.owner.certified.clone()))));
    let silent = tokio::spawn(async move {
        let mut stream = connector.connect(any_name(), ours).await.unwrap();
        let _ = stream.read(&mut [0; 1]).await;
    });
    let error = guest.acceptor.accept(theirs).await.unwrap_err();
    assert!(matches!(error, AcceptError::Deadline { stage: "its challenge", .. }), "{error}");
    silent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_stays_is_left() {
    let world = World::new();
    let guest = world.guest();
    let (ours, theirs) = wire();
    let connector = TlsConnector::from(Arc::new(careless_client(None)));
    let staying = tokio::spawn(async move {
        let stream = connector.connect(any_name(), ours).await;
        std::future::pending::<()>().await;
        drop(stream);
    });
    let start = Instant::now();
    assert!(matches!(guest.acceptor.accept(theirs).await, Err(AcceptError::Tls(_))));
    assert!(start.elapsed() < server::HANDSHAKE_DEADLINE);
    staying.abort();
}
