//! The owner's end: connects, checks the guest by name of each check, and only then shows who the owner is.
//!
//! [`connect`] gives a stream on which nothing but HTTP/2 follows, and [`Attested`], the proof that the guest at its
//! other end passed every check.

use std::{io, sync::Arc, time::Duration};

use postern_evidence::{
    Appraisal, AppraisalError, Check, Evidence, ReferenceValues, RootKind, TrustedRoots, VerifyError,
    binding::{self, EXPORTER_LABEL, Purpose},
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{
    AlertDescription, ClientConfig, client::Resumption, pki_types::ServerName, sign::SingleCertAndKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{
    guest::GuestCertificateError,
    identity::ClientIdentity,
    instance::InstanceKey,
    provider,
    wire::{self, Answer, WireError},
};

mod verifier;

use verifier::{AttestedKey, GuestVerifier};

/// From the first byte to the end of the TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From the nonce to fresh evidence. A TEE takes its time, and other clients may ask it too.
pub const EVIDENCE_DEADLINE: Duration = Duration::from_secs(20);

/// The stream behind the tunnel's door. TLS sits directly on the transport.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// What the owner expects at the other end.
#[derive(Debug, Clone)]
pub struct Expectation {
    pub roots: TrustedRoots,
    pub reference_values: ReferenceValues,
    pub instance: ExpectedInstance,
    /// Unix time in seconds, by the owner's clock.
    pub now: u64,
}

/// Whether the owner has met this pod before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedInstance {
    /// Never connected to it: whichever instance passes the other checks is the one, from now on.
    FirstContact,
    /// Connected before: it has to be the same launch.
    Same(InstanceKey),
}

/// Proof that the guest passed every check, with what was found. Only [`connect`] makes one.
#[derive(Debug, Clone)]
pub struct Attested {
    appraisal: Appraisal,
    instance: InstanceKey,
    checks: Vec<(Check, String)>,
    exporter: [u8; 32],
}

impl Attested {
    /// The fresh report of this session.
    pub fn appraisal(&self) -> &Appraisal {
        &self.appraisal
    }

    /// To be remembered, and expected next time.
    pub fn instance(&self) -> InstanceKey {
        self.instance
    }

    /// Every check, in the order of [`Check::ALL`], with what was found.
    pub fn checks(&self) -> &[(Check, String)] {
        &self.checks
    }

    pub fn root_kind(&self) -> RootKind {
        self.appraisal.root_kind()
    }

    /// Appraises evidence that the guest gave for [`Purpose::Verify`] and `nonce` inside this tunnel.
    pub fn verify_again(
        &self,
        evidence: &Evidence,
        nonce: &[u8; 32],
        expectation: &Expectation,
    ) -> Result<Appraisal, CheckFailure> {
        let report_data = binding::session(nonce, &self.exporter, Purpose::Verify);
        let report_id = self.appraisal.report().report_id;
        verifier::appraise_session(evidence, expectation, &report_data, &report_id)
    }
}

/// Where a connection was when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Handshake,
    Evidence,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the TLS handshake",
            Self::Evidence => "the exchange of fresh evidence",
        })
    }
}

/// What exactly a check found wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    #[error("certificate of the guest is refused")]
    Certificate(#[from] GuestCertificateError),
    #[error("evidence was not verified")]
    Verify(#[from] VerifyError),
    #[error("guest is not the expected one")]
    Appraisal(#[from] AppraisalError),
    #[error(
        "instance is {found}, last time it was {expected}: the pod was started anew, or another one answers"
    )]
    Instance { expected: InstanceKey, found: InstanceKey },
    #[error("fresh evidence is another guest's than the certificate's")]
    OtherGuest,
}

impl CheckFailure {
    /// The check that failed.
    pub fn check(&self) -> Check {
        match self {
            Self::Certificate(_) => Check::KeyBinding,
            Self::Verify(error) => error.check(),
            Self::Appraisal(error) => error.check(),
            Self::Instance { .. } => Check::Instance,
            Self::OtherGuest => Check::SessionBinding,
        }
    }
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("guest failed the check {:?}", .0.check().as_str())]
    Check(#[source] CheckFailure),
    #[error("guest refused this owner: {}", refusal(*.0))]
    Refused(AlertDescription),
    #[error("guest has no evidence to give; its TEE did not answer")]
    NoEvidence,
    #[error("guest did not finish {stage} within {} s", after.as_secs())]
    Deadline { stage: Stage, after: Duration },
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    #[error("peer does not speak HTTP/2 inside TLS; is this a pod's owner endpoint?")]
    Protocol,
    #[error("exchange of fresh evidence failed")]
    Exchange(#[source] WireError),
    #[error("connection failed in {stage}")]
    Io { stage: Stage, source: io::Error },
    #[error("no random numbers from the operating system")]
    Random,
}

impl ConnectError {
    /// The check that failed, if it was a check.
    pub fn check(&self) -> Option<Check> {
        match self {
            Self::Check(failure) => Some(failure.check()),
            Self::Refused(_)
            | Self::NoEvidence
            | Self::Deadline { .. }
            | Self::Tls(_)
            | Self::Protocol
            | Self::Exchange(_)
            | Self::Io { .. }
            | Self::Random => None,
        }
    }

    fn from_io(stage: Stage, error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused(*alert),
            Some(other) => Self::Tls(other.clone()),
            None => Self::Io { stage, source: error },
        }
    }

    fn from_wire(error: WireError) -> Self {
        match error {
            WireError::Io(error) => Self::from_io(Stage::Evidence, error),
            other => Self::Exchange(other),
        }
    }
}

fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it asks for a client certificate".into(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the client certificate is not issued by the owner CA in the pod's init data".into()
        }
        AlertDescription::CertificateExpired => {
            "the client certificate has expired, or is not valid yet by the guest's clock".into()
        }
        AlertDescription::CertificateUnknown | AlertDescription::UnsupportedCertificate => {
            "the client certificate is not for client authentication with exactly one role".into()
        }
        other => format!("TLS alert {other:?}"),
    }
}

/// Connects over `io`, which may be anything. The guest sees the owner's certificate only after it has passed every
/// check that its own certificate allows; the stream is handed out only after the rest.
pub async fn connect<IO>(
    io: IO,
    identity: &ClientIdentity,
    expectation: &Expectation,
) -> Result<(ClientStream<IO>, Attested), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(GuestVerifier::new(expectation.clone()));
    let (mut stream, exporter) = handshake(io, identity, &verifier).await?;
    // The TLS library has asked the verifier, or there would be no stream.
    let guest = verifier.take_attested().ok_or(ConnectError::Protocol)?;

    let deadline = Instant::now() + EVIDENCE_DEADLINE;
    let (evidence, nonce) = timeout_at(deadline, exchange(&mut stream, &guest))
        .await
        .map_err(|_| ConnectError::Deadline { stage: Stage::Evidence, after: EVIDENCE_DEADLINE })??;

    let report_data = binding::session(&nonce, &exporter, Purpose::Session);
    let report_id = guest.appraisal.report().report_id;
    let appraisal = verifier::appraise_session(&evidence, expectation, &report_data, &report_id)
        .map_err(ConnectError::Check)?;
    let checks = all_checks(&guest, &appraisal, expectation.instance);
    Ok((stream, Attested { appraisal, instance: guest.instance, checks, exporter }))
}

async fn handshake<IO>(
    io: IO,
    identity: &ClientIdentity,
    verifier: &Arc<GuestVerifier>,
) -> Result<(ClientStream<IO>, [u8; 32]), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let connector = TlsConnector::from(Arc::new(config(identity, verifier.clone())?));
    // Never sent (no SNI) and never compared: a guest is known by its evidence, not by a name.
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let stream = timeout_at(deadline, connector.connect(name, io))
        .await
        .map_err(|_| ConnectError::Deadline { stage: Stage::Handshake, after: HANDSHAKE_DEADLINE })?
        .map_err(|error| match verifier.take_failure() {
            Some(failure) => ConnectError::Check(failure),
            None => ConnectError::from_io(Stage::Handshake, error),
        })?;
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(provider::ALPN) {
        return Err(ConnectError::Protocol);
    }
    let exporter =
        connection.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(ConnectError::Tls)?;
    Ok((stream, exporter))
}

fn config(identity: &ClientIdentity, verifier: Arc<GuestVerifier>) -> Result<ClientConfig, ConnectError> {
    let mut config = ClientConfig::builder_with_provider(provider::provider())
        .with_protocol_versions(provider::VERSIONS)
        .map_err(ConnectError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone())));
    config.alpn_protocols = vec![provider::ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    Ok(config)
}

/// Sends a nonce and reads fresh evidence, completed with the certificates that are known already.
async fn exchange<IO>(
    stream: &mut ClientStream<IO>,
    guest: &AttestedKey,
) -> Result<(Evidence, [u8; 32]), ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut nonce = [0; 32];
    SystemRandom::new().fill(&mut nonce).map_err(|_| ConnectError::Random)?;
    wire::send_challenge(stream, &nonce).await.map_err(ConnectError::from_wire)?;
    match wire::receive_answer(stream).await.map_err(ConnectError::from_wire)? {
        Answer::None => Err(ConnectError::NoEvidence),
        Answer::Evidence(mut evidence) => {
            if evidence.certificates.is_empty() {
                evidence.certificates.clone_from(&guest.certificates);
            }
            Ok((evidence, nonce))
        }
    }
}

fn all_checks(guest: &AttestedKey, session: &Appraisal, expected: ExpectedInstance) -> Vec<(Check, String)> {
    let known = match expected {
        ExpectedInstance::FirstContact => "first contact",
        ExpectedInstance::Same(_) => "as last time",
    };
    let mut checks = guest.appraisal.checks().to_vec();
    checks.extend(session.checks().iter().filter(|(check, _)| *check == Check::SessionBinding).cloned());
    checks.push((Check::Instance, format!("{}, {known}", guest.instance)));
    checks
}
