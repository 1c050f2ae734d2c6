//! The guest's end: lets in clients of the owner's, and proves to each that it speaks with this guest.
//!
//! The TLS configuration is made once. Fresh evidence is asked for only by clients that the owner's CA vouches for,
//! one at a time, off the executor.

use std::{io, sync::Arc, time::Duration};

use postern_evidence::{
    CollectError, Evidence, EvidenceSource,
    binding::{self, EXPORTER_LABEL, Purpose},
};
use postern_model::Role;
use rustls::{ServerConfig, server::NoServerSessionStorage, sign::SingleCertAndKey};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    guest::GuestIdentity,
    identity::{CertificateProblem, ClientCertificate, authority},
    provider,
    wire::{self, Answer, WireError},
};

mod clients;

use clients::OwnerClients;

/// From the first byte to the end of the TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From the end of the handshake to the client's nonce.
pub const CHALLENGE_DEADLINE: Duration = Duration::from_secs(10);
/// From the nonce to the last byte of evidence taken by the client.
pub const EVIDENCE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a refused client is given to read why, and how much of what it still sends is read.
const LINGER_DEADLINE: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// The stream behind the tunnel's door. TLS sits directly on the transport.
pub type ServerStream<IO> = tokio_rustls::server::TlsStream<IO>;

/// Who is at the other end, as the owner CA vouches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub role: Role,
    pub name: String,
    /// When the certificate ends, as Unix time in seconds.
    pub not_after: u64,
    /// Exporter of this session, to bind later evidence to it.
    pub exporter: [u8; 32],
}

/// Why no client can be let in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    #[error("owner CA certificate cannot be used")]
    OwnerCa(#[source] CertificateProblem),
    #[error("TLS library refuses the owner CA certificate")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("TLS cannot be configured")]
    Tls(#[from] rustls::Error),
}

/// Why one client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("client did not finish {stage} within {} s", after.as_secs())]
    Deadline { stage: &'static str, after: Duration },
    #[error("TLS refused the client")]
    Tls(#[source] rustls::Error),
    #[error("connection failed in the TLS handshake")]
    Io(#[source] io::Error),
    #[error("client does not speak HTTP/2 inside TLS")]
    Protocol,
    #[error("client certificate is refused")]
    Certificate(#[from] CertificateProblem),
    #[error("exchange of fresh evidence failed")]
    Exchange(#[from] WireError),
    #[error("TEE gave no evidence for the session")]
    Evidence(#[from] CollectError),
    #[error("evidence was given up half-way")]
    Interrupted,
}

/// Lets clients in. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    inner: Arc<Inner>,
}

struct Inner {
    tls: TlsAcceptor,
    source: Arc<dyn EvidenceSource>,
    /// Certificates that every client has from the TLS certificate.
    certificates: Vec<u8>,
    /// The TEE answers one request at a time; waiting here holds no thread.
    turn: Arc<Semaphore>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("source", &self.inner.source).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Accepts clients under `owner_ca_der`, the one certificate that the init data carries.
    pub fn new(
        identity: &GuestIdentity,
        owner_ca_der: &[u8],
        source: Arc<dyn EvidenceSource>,
    ) -> Result<Self, AcceptorError> {
        authority(owner_ca_der).map_err(AcceptorError::OwnerCa)?;
        let mut config = ServerConfig::builder_with_provider(provider::provider())
            .with_protocol_versions(provider::VERSIONS)?
            .with_client_cert_verifier(Arc::new(OwnerClients::new(owner_ca_der)?))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone())));
        config.alpn_protocols = vec![provider::ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self {
            inner: Arc::new(Inner {
                tls: TlsAcceptor::from(Arc::new(config)),
                source,
                certificates: identity.evidence().certificates.clone(),
                turn: Arc::new(Semaphore::new(1)),
            }),
        })
    }

    /// Lets one client in: handshake, then fresh evidence for its nonce. Every wait inside has a deadline; how many
    /// of these run at once is the caller's to bound.
    pub async fn accept<IO>(&self, io: IO) -> Result<(ServerStream<IO>, Peer), AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = self.handshake(io).await?;
        let peer = peer(&stream)?;
        let nonce =
            within("its challenge", CHALLENGE_DEADLINE, wire::receive_challenge(&mut stream)).await??;
        let report_data = binding::session(&nonce, &peer.exporter, Purpose::Session);
        within("taking fresh evidence", EVIDENCE_DEADLINE, self.answer(&mut stream, report_data)).await??;
        Ok((stream, peer))
    }

    async fn handshake<IO>(&self, io: IO) -> Result<ServerStream<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let accept = self.inner.tls.accept(io).into_fallible();
        match within("the TLS handshake", HANDSHAKE_DEADLINE, accept).await? {
            Ok(stream) => Ok(stream),
            Err((error, io)) => {
                linger(io).await;
                match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(error) => Err(AcceptError::Tls(error.clone())),
                    None => Err(AcceptError::Io(error)),
                }
            }
        }
    }

    async fn answer<IO>(
        &self,
        stream: &mut ServerStream<IO>,
        report_data: [u8; 64],
    ) -> Result<(), AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match self.evidence(report_data).await {
            Ok(mut evidence) => {
                if evidence.certificates == self.inner.certificates {
                    evidence.certificates.clear();
                }
                Ok(wire::send_answer(stream, &Answer::Evidence(evidence)).await?)
            }
            Err(error) => {
                // The client is told that there is none; this error is the better one to report.
                let _ = wire::send_answer(stream, &Answer::None).await;
                let _ = stream.shutdown().await;
                Err(error)
            }
        }
    }

    async fn evidence(&self, report_data: [u8; 64]) -> Result<Evidence, AcceptError> {
        let Ok(turn) = self.inner.turn.clone().acquire_owned().await else {
            return Err(AcceptError::Interrupted);
        };
        let source = self.inner.source.clone();
        let work = tokio::task::spawn_blocking(move || {
            let evidence = source.evidence(&report_data);
            // Held until the TEE has answered, even if nobody waits any more.
            drop(turn);
            evidence
        });
        Ok(work.await.map_err(|_| AcceptError::Interrupted)??)
    }
}

async fn within<T>(
    stage: &'static str,
    after: Duration,
    work: impl Future<Output = T>,
) -> Result<T, AcceptError> {
    timeout(after, work).await.map_err(|_| AcceptError::Deadline { stage, after })
}

fn peer<IO>(stream: &ServerStream<IO>) -> Result<Peer, AcceptError> {
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(provider::ALPN) {
        return Err(AcceptError::Protocol);
    }
    let certificate =
        connection.peer_certificates().and_then(|chain| chain.first()).ok_or(AcceptError::Protocol)?;
    let ClientCertificate { name, role, validity } = ClientCertificate::parse(certificate)?;
    let exporter =
        connection.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(AcceptError::Tls)?;
    Ok(Peer { role, name, not_after: validity.not_after, exporter })
}

/// Reads on for a moment: closing with unread bytes would reset the connection, and the alert would be lost with it.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    let _ = timeout(LINGER_DEADLINE, async {
        let _ = io.shutdown().await;
        let _ = tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    })
    .await;
}
