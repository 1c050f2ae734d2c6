//! Clients that are not the owner's: the guest lets none of them in, and tells them why in TLS' own words.

use std::{io, sync::Arc, time::Duration};

use postern_model::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType, date_time_ymd,
};
use rustls::{
    AlertDescription, Error,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::fixture::{DAY, Guest, World, any_name, careless_client, now, wire};
use crate::{
    AcceptError, Acceptor, AcceptorError, ConnectError, OwnerCa, Validity, connect,
    identity::CertificateProblem,
};

/// Parameters of a certificate that is as it should be.
fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "mallory");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![role("admin")];
    params
}

fn role(role: &str) -> SanType {
    SanType::URI(format!("postern://role/{role}").try_into().unwrap())
}

fn certified(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Arc::new(CertifiedKey::new(vec![certificate], any_ecdsa_type(&key).unwrap()))
}

fn issue(ca: &OwnerCa, params: &CertificateParams) -> Arc<CertifiedKey> {
    let ca_key = KeyPair::from_pem(ca.key_pem().expose()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&ca.certificate_der().into(), ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    certified(params.signed_by(&key, &issuer).unwrap().der().clone(), &key)
}

/// Tries to get in with `key`. Gives the guest's verdict, and what the client is told.
async fn attempt(
    guest: &Guest,
    key: Option<Arc<CertifiedKey>>,
) -> (Result<(), AcceptError>, Option<AlertDescription>) {
    let (ours, theirs) = wire();
    let client = async {
        // The client's handshake ends before the guest has looked at its certificate: the alert comes after.
        let connector = TlsConnector::from(Arc::new(careless_client(key)));
        let mut stream = match connector.connect(any_name(), ours).await {
            Ok(stream) => stream,
            Err(error) => return Err(error),
        };
        crate::wire::send_challenge(&mut stream, &[0; 32]).await.map_err(io::Error::other)?;
        stream.read_exact(&mut [0; 16]).await
    };
    let (server, client) = tokio::join!(guest.acceptor.accept(theirs), client);
    let alert = client.err().and_then(|error| match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    });
    (server.map(drop), alert)
}

#[tokio::test]
async fn only_the_owners_clients_get_in() {
    let world = World::new();
    let guest = world.guest();
    let other_ca = OwnerCa::create(Validity::starting(now(), DAY)).unwrap();
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = good();
        change(&mut params);
        Some(issue(&world.ca, &params))
    };
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        certified(good().self_signed(&key).unwrap().der().clone(), &key)
    };
    let cases = [
        ("no certificate", None, AlertDescription::CertificateRequired),
        ("self-signed", Some(self_signed), AlertDescription::UnknownCA),
        ("wrong CA", Some(issue(&other_ca, &good())), AlertDescription::UnknownCA),
        ("a guest's own certificate", Some(guest.identity.certified.clone()), AlertDescription::UnknownCA),
        (
            "for servers",
            with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            AlertDescription::UnsupportedCertificate,
        ),
        ("for nothing", with(|p| p.extended_key_usages.clear()), AlertDescription::CertificateUnknown),
        ("expired", with(|p| p.not_after = date_time_ymd(2020, 1, 1)), AlertDescription::CertificateExpired),
        (
            "not yet valid",
            with(|p| p.not_before = date_time_ymd(2090, 1, 1)),
            AlertDescription::CertificateExpired,
        ),
        ("no role", with(|p| p.subject_alt_names.clear()), AlertDescription::CertificateUnknown),
        (
            "two roles",
            with(|p| p.subject_alt_names = vec![role("viewer"), role("admin")]),
            AlertDescription::CertificateUnknown,
        ),
        (
            "one role twice",
            with(|p| p.subject_alt_names = vec![role("viewer"), role("viewer")]),
            AlertDescription::CertificateUnknown,
        ),
        (
            "unknown role",
            with(|p| p.subject_alt_names = vec![role("root")]),
            AlertDescription::CertificateUnknown,
        ),
        (
            "no name",
            with(|p| p.distinguished_name = DistinguishedName::new()),
            AlertDescription::CertificateUnknown,
        ),
    ];
    for (what, key, expected) in cases {
        let (verdict, alert) = attempt(&guest, key).await;
        assert!(matches!(verdict, Err(AcceptError::Tls(_))), "{what}: {verdict:?}");
        assert_eq!(alert, Some(expected), "{what}");
    }
    let (verdict, alert) = attempt(&guest, Some(issue(&world.ca, &good()))).await;
    assert!(verdict.is_ok() && alert.is_none(), "the same without a flaw gets in: {verdict:?}");
}

/// A client may not issue certificates, though the owner CA signed its own.
#[tokio::test]
async fn a_clients_client_does_not_get_in() {
    let world = World::new();
    let guest = world.guest();
    let mut params = good();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::from_pem(world.ca.key_pem().expose()).unwrap();
    let owner = Issuer::from_ca_cert_der(&world.ca.certificate_der().into(), ca_key).unwrap();
    let middle_key = KeyPair::generate().unwrap();
    let middle = params.signed_by(&middle_key, &owner).unwrap().der().clone();
    let alone = certified(middle.clone(), &middle_key);
    assert!(attempt(&guest, Some(alone)).await.0.is_err(), "an authority is no client");

    let key = KeyPair::generate().unwrap();
    let mut ordinary = good();
    ordinary.is_ca = IsCa::NoCa;
    let client = world.owner.certified.cert[0].clone();
    let client_issuer =
        Issuer::from_ca_cert_der(&client, KeyPair::from_pem(world.owner.key_pem().expose()).unwrap());
    let leaf = ordinary.signed_by(&key, &client_issuer.unwrap()).unwrap().der().clone();
    let mut chain = certified(leaf, &key).as_ref().clone();
    chain.cert.push(client);
    assert!(attempt(&guest, Some(Arc::new(chain))).await.0.is_err());
}

#[tokio::test]
async fn the_owner_is_told_why_it_is_refused() {
    let world = World::new();
    let guest = world.guest();
    let stranger = World::new().owner;
    let long_ago = Validity { not_before: 1_000_000_000, not_after: 1_000_000_001 };
    let expired = world.ca.issue("alice", Role::Admin, long_ago).unwrap();
    for (identity, says) in [(stranger, "owner CA"), (expired, "expired")] {
        let (ours, theirs) = wire();
        let expectation = world.expectation();
        let (client, server) =
            tokio::join!(connect(ours, &identity, &expectation), guest.acceptor.accept(theirs));
        let error = client.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(server.is_err());
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let world = World::new();
    let guest = world.guest();
    // ClientHello of TLS 1.2: ECDHE-ECDSA-AES128-GCM-SHA256, groups, signature algorithms; no `supported_versions`.
    let mut body = vec![3, 3];
    body.extend([0x22; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 0x1d][..],
        &[0, 13, 0, 4, 0, 2, 4, 3],
        &[0, 11, 0, 2, 1, 0],
        &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'],
    ]
    .concat();
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);

    let (mut ours, theirs) = wire();
    let client = async {
        ours.write_all(&hello).await.unwrap();
        let mut answer = [0; 7];
        ours.read_exact(&mut answer).await.unwrap();
        answer
    };
    let (server, answer) = tokio::join!(guest.acceptor.accept(theirs), client);
    assert!(matches!(server, Err(AcceptError::Tls(Error::PeerIncompatible(_)))), "{server:?}");
    // Record type alert, fatal, `protocol_version` (RFC 8446, section 6).
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70));
}

#[tokio::test]
async fn nothing_but_http_2_is_spoken_inside() {
    let world = World::new();
    let guest = world.guest();
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let (ours, theirs) = wire();
        let mut config = careless_client(Some(world.owner.certified.clone()));
        config.alpn_protocols = protocols;
        let connector = TlsConnector::from(Arc::new(config));
        let (server, _) = tokio::join!(guest.acceptor.accept(theirs), connector.connect(any_name(), ours));
        assert!(server.is_err());
    }
}

#[tokio::test]
async fn requests_before_the_challenge_are_not_read() {
    let world = World::new();
    let guest = world.guest();
    let (ours, theirs) = wire();
    let connector = TlsConnector::from(Arc::new(careless_client(Some(world.owner.certified.clone()))));
    let client = async {
        let mut stream = connector.connect(any_name(), ours).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n................").await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
        rest
    };
    let (server, rest) = tokio::join!(
        async {
            let verdict = guest.acceptor.accept(theirs).await;
            matches!(verdict, Err(AcceptError::Exchange(crate::wire::WireError::Magic)))
        },
        client
    );
    assert!(server);
    assert!(rest.is_empty());
}

#[test]
fn a_guest_does_not_start_without_a_proper_owner_ca() {
    let world = World::new();
    let guest = world.guest();
    let tee = || Arc::new(super::fixture::Tee0(world.launch()));
    let client = Acceptor::new(&guest.identity, world.owner.certificate_der(), tee());
    assert!(matches!(client, Err(AcceptorError::OwnerCa(CertificateProblem::NotAnAuthority))));
    let nonsense = Acceptor::new(&guest.identity, b"nonsense", tee());
    assert!(matches!(nonsense, Err(AcceptorError::OwnerCa(CertificateProblem::Malformed))));
}
