//! An owner, a simulated platform, guests on it, and the pieces of which adversaries are made.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use postern_evidence::{
    CollectError, Evidence, EvidenceSource, ReferenceValues, Tee, TrustedRoot, TrustedRoots,
};
use postern_model::{HostData, Measurement, PodName, Role};
use postern_simtee::{GuestContext, Launch, Platform};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::io::DuplexStream;

use crate::{
    Acceptor, Attested, ClientIdentity, ClientStream, ConnectError, Expectation, ExpectedInstance,
    GuestIdentity, OwnerCa, Validity, client, provider,
};

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A guest's TEE, without the wire between them.
#[derive(Debug)]
pub(super) struct Tee0(pub(super) GuestContext);

impl EvidenceSource for Tee0 {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CollectError> {
        let report = self.0.report(report_data).map_err(|_| CollectError::Broken)?;
        Ok(Evidence { tee: Tee::Snp, report, certificates: self.0.certificates().to_vec() })
    }
}

/// A TEE that answers once, for the certificate, and never again.
#[derive(Debug)]
pub(super) struct OnceTee(pub(super) Tee0, pub(super) AtomicBool);

impl EvidenceSource for OnceTee {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CollectError> {
        match self.1.swap(true, Ordering::SeqCst) {
            false => self.0.evidence(report_data),
            true => Err(CollectError::Broken),
        }
    }
}

pub(super) struct World {
    pub(super) platform: Platform,
    pub(super) ca: OwnerCa,
    pub(super) owner: ClientIdentity,
}

/// A guest that waits for clients.
pub(super) struct Guest {
    pub(super) identity: GuestIdentity,
    pub(super) acceptor: Acceptor,
}

impl World {
    pub(super) fn new() -> Self {
        let ca = OwnerCa::create(Validity::starting(now(), DAY * 365)).unwrap();
        let owner = ca.issue("alice", Role::Operator, Validity::starting(now(), DAY)).unwrap();
        Self { platform: Platform::ephemeral().unwrap(), ca, owner }
    }

    pub(super) fn launch(&self) -> GuestContext {
        let launch = Launch::new(Measurement::new([0xab; 48]), HostData::new([0xcd; 32]));
        self.platform.launch(launch).unwrap()
    }

    pub(super) fn guest(&self) -> Guest {
        self.guest_from(self.launch())
    }

    pub(super) fn guest_from(&self, context: GuestContext) -> Guest {
        self.guest_with(Arc::new(Tee0(context)))
    }

    pub(super) fn guest_with(&self, tee: Arc<dyn EvidenceSource>) -> Guest {
        let identity = GuestIdentity::new(&PodName::new("demo").unwrap(), tee.as_ref()).unwrap();
        let acceptor = Acceptor::new(&identity, self.ca.certificate_der(), tee).unwrap();
        Guest { identity, acceptor }
    }

    pub(super) fn expectation(&self) -> Expectation {
        Expectation {
            roots: TrustedRoots::amd()
                .with(TrustedRoot::simulated("here", self.platform.root_der()).unwrap()),
            reference_values: ReferenceValues {
                measurements: vec![Measurement::new([0xab; 48])],
                host_data: HostData::new([0xcd; 32]),
                minimum_tcb: "boot_loader=3,tee=0,snp=8,microcode=115".parse().unwrap(),
            },
            instance: ExpectedInstance::FirstContact,
            now: now(),
        }
    }

    pub(super) async fn connect(
        &self,
        io: DuplexStream,
    ) -> Result<(ClientStream<DuplexStream>, Attested), ConnectError> {
        client::connect(io, &self.owner, &self.expectation()).await
    }
}

pub(super) fn wire() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 * 1024)
}

/// TLS of a guest that asks clients for their certificate and takes note of what it gets.
pub(super) fn curious_server(certified: Arc<CertifiedKey>) -> (Arc<ServerConfig>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let mut config = ServerConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(provider::VERSIONS)
        .unwrap()
        .with_client_cert_verifier(seen.clone())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![provider::ALPN.to_vec()];
    (Arc::new(config), seen)
}

/// What a verifier says that believes whatever a peer signs.
macro_rules! believe_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![provider::SCHEME]
        }
    };
}

/// The client certificates that a server was shown.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Vec<Vec<u8>>>);

impl Seen {
    pub(super) fn certificates(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl ClientCertVerifier for Seen {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.lock().unwrap().push(end_entity.to_vec());
        Ok(ClientCertVerified::assertion())
    }

    believe_signatures!();
}

/// TLS of a client that believes any guest and shows `certified`, or nothing.
pub(super) fn careless_client(certified: Option<Arc<CertifiedKey>>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(provider::VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match certified {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![provider::ALPN.to_vec()];
    config
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    believe_signatures!();
}

pub(super) fn any_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}
