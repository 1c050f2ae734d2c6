//! Which client certificates the guest accepts: the owner CA's, for clients, with exactly one role.
//!
//! Chain, signature and dates are the TLS library's to check; it is strict but lets a certificate without any
//! stated purpose pass, and knows nothing of roles. Both are added here, still inside the handshake.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::AcceptorError;
use crate::{identity::ClientCertificate, provider};

#[derive(Debug)]
pub(super) struct OwnerClients {
    chain: Arc<dyn ClientCertVerifier>,
}

impl OwnerClients {
    pub(super) fn new(owner_ca_der: &[u8]) -> Result<Self, AcceptorError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(owner_ca_der.to_vec()))?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider::provider())
            // Who the owner is, is not told to whoever asks.
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain })
    }
}

impl ClientCertVerifier for OwnerClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match ClientCertificate::parse(end_entity) {
            Ok(_) => Ok(verified),
            Err(problem) => Err(CertificateError::Other(OtherError(Arc::new(problem))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![provider::SCHEME]
    }
}
