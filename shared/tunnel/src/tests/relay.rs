//! Somebody in the middle: carrying bytes is harmless; ending TLS is found out, whatever key it is done with.

use std::sync::Arc;

use postern_evidence::{Check, Evidence};
use postern_model::PodName;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use tokio::io::DuplexStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::fixture::{Guest, Tee0, World, any_name, careless_client, curious_server, wire};
use crate::{ConnectError, GuestIdentity, extension, wire as frames};

/// Ends the owner's TLS with `certified` and has the genuine guest answer the owner's nonce, over a connection of
/// its own, for which it holds a client certificate of the owner's. The strongest relay there is.
async fn relay(world: &World, guest: &Guest, certified: Arc<CertifiedKey>) -> ConnectError {
    let (owner_end, relay_end) = wire();
    let (relay_out, guest_end) = wire();
    let (config, _) = curious_server(certified);
    let stolen_access = world.owner.certified.clone();
    let relaying = tokio::spawn(async move {
        let Ok(mut owner) = TlsAcceptor::from(config).accept(relay_end).await else { return };
        let connector = TlsConnector::from(Arc::new(careless_client(Some(stolen_access))));
        let mut genuine = connector.connect(any_name(), relay_out).await.unwrap();
        let Ok(nonce) = frames::receive_challenge(&mut owner).await else { return };
        frames::send_challenge(&mut genuine, &nonce).await.unwrap();
        let answer = frames::receive_answer(&mut genuine).await.unwrap();
        frames::send_answer(&mut owner, &answer).await.unwrap();
        let _ = frames::receive_challenge(&mut owner).await;
    });
    let acceptor = guest.acceptor.clone();
    let serving = tokio::spawn(async move {
        let _ = acceptor.accept(guest_end).await;
    });
    let error = world.connect(owner_end).await.unwrap_err();
    relaying.abort();
    serving.abort();
    error
}

/// A certificate over a key of the relay's own, with somebody else's evidence in it.
fn certificate_with(evidence: &Evidence) -> Arc<CertifiedKey> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(extension::OID, extension::encode(evidence).unwrap())];
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Arc::new(CertifiedKey::new(vec![certificate], any_ecdsa_type(&key).unwrap()))
}

#[tokio::test]
async fn carrying_bytes_is_harmless() {
    let world = World::new();
    let guest = world.guest();
    let (owner_end, mut near): (DuplexStream, DuplexStream) = wire();
    let (mut far, guest_end) = wire();
    let carrying = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    let (client, server) = tokio::join!(world.connect(owner_end), guest.acceptor.accept(guest_end));
    client.unwrap();
    server.unwrap();
    carrying.abort();
}

#[tokio::test]
async fn a_relay_with_the_guests_stolen_key_fails_at_the_session_binding() {
    let world = World::new();
    let guest = world.guest();
    let error = relay(&world, &guest, guest.identity.certified.clone()).await;
    assert_eq!(error.check(), Some(Check::SessionBinding), "{error}");
}

#[tokio::test]
async fn a_relay_with_its_own_key_and_the_guests_evidence_fails_at_the_key_binding() {
    let world = World::new();
    let guest = world.guest();
    let error = relay(&world, &guest, certificate_with(guest.identity.evidence())).await;
    assert_eq!(error.check(), Some(Check::KeyBinding), "{error}");
}

/// The relay has had its own key vouched for once, by the very same guest's TEE.
#[tokio::test]
async fn a_relay_with_its_own_key_vouched_for_fails_at_the_session_binding() {
    let world = World::new();
    let context = world.launch();
    let guest = world.guest_from(context.clone());
    let vouched = GuestIdentity::new(&PodName::new("demo").unwrap(), &Tee0(context)).unwrap();
    let error = relay(&world, &guest, vouched.certified.clone()).await;
    assert_eq!(error.check(), Some(Check::SessionBinding), "{error}");
}

/// Two launches of one image with one init data: evidence of one does not open a session with the other.
#[tokio::test]
async fn a_twin_does_not_vouch_for_its_twin() {
    let world = World::new();
    let twin = world.launch();
    let guest = world.guest();
    let (ours, theirs) = wire();
    let (config, _) = curious_server(guest.identity.certified.clone());
    let serving = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(config).accept(theirs).await.unwrap();
        let nonce = frames::receive_challenge(&mut stream).await.unwrap();
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], postern_evidence::binding::EXPORTER_LABEL, None)
            .unwrap();
        let data = postern_evidence::binding::session(
            &nonce,
            &exporter,
            postern_evidence::binding::Purpose::Session,
        );
        let evidence = postern_evidence::EvidenceSource::evidence(&Tee0(twin), &data).unwrap();
        frames::send_answer(&mut stream, &frames::Answer::Evidence(evidence)).await.unwrap();
        let _ = frames::receive_challenge(&mut stream).await;
    });
    let error = world.connect(ours).await.unwrap_err();
    assert_eq!(error.check(), Some(Check::SessionBinding));
    assert!(matches!(error, ConnectError::Check(crate::client::CheckFailure::OtherGuest)), "{error}");
    serving.await.unwrap();
}

/// A certificate that holds two pieces of evidence, or none, or comes with company.
#[tokio::test]
async fn a_certificate_of_another_shape_fails_at_the_key_binding() {
    let world = World::new();
    let guest = world.guest();
    let wrapper = || {
        let content = extension::encode(guest.identity.evidence()).unwrap();
        CustomExtension::from_oid_content(extension::OID, content)
    };
    for extensions in [vec![], vec![wrapper(), wrapper()]] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.custom_extensions = extensions;
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = CertifiedKey::new(vec![certificate], any_ecdsa_type(&key).unwrap());
        let error = relay(&world, &guest, Arc::new(certified)).await;
        assert_eq!(error.check(), Some(Check::KeyBinding), "{error}");
    }
    let mut chain = guest.identity.certified.cert.clone();
    chain.push(chain[0].clone());
    let certified = CertifiedKey::new(chain, guest.identity.certified.key.clone());
    let error = relay(&world, &guest, Arc::new(certified)).await;
    assert_eq!(error.check(), Some(Check::KeyBinding), "{error}");
}
