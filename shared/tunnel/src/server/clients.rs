//! Which client certificates the guest accepts: the owner CA's, for clients, with exactly one role.
//!
//! Chain, signature and dates are the TLS library's to check; it is strict but lets a certificate without any
//! stated purpose pass, and knows nothing of roles. Both are added here, still inside the handshake. That the CA
//! issued a certificate is found out once: owners come back with the same one, and only its dates can change the answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

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
use crate::{Validity, identity::ClientCertificate, provider};

/// Certificates that are remembered.
const KNOWN: usize = 32;

#[derive(Debug)]
pub(super) struct OwnerClients {
    chain: Arc<dyn ClientCertVerifier>,
    /// Certificates that were accepted, byte for byte, with their dates.
    known: Mutex<VecDeque<(CertificateDer<'static>, Validity)>>,
}

impl OwnerClients {
    pub(super) fn new(owner_ca_der: &[u8]) -> Result<Self, AcceptorError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(owner_ca_der.to_vec()))?;
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider::provider())
            // Who the owner is, is not told to whoever asks.
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, known: Mutex::default() })
    }

    fn is_known(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|(known, validity)| known == certificate && validity.contains(now.as_secs()))
    }

    fn remember(&self, certificate: &CertificateDer<'_>, validity: Validity) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.pop_front();
        }
        known.push_back((certificate.clone().into_owned(), validity));
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
        if self.is_known(end_entity, now) {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match ClientCertificate::parse(end_entity) {
            Ok(ClientCertificate { validity, .. }) => {
                self.remember(end_entity, validity);
                Ok(verified)
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postern_model::Role;

    use super::*;
    use crate::OwnerCa;

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn a_known_certificate_still_expires() {
        let validity = Validity { not_before: NOW - 10, not_after: NOW + 10 };
        let ca = OwnerCa::create(validity).unwrap();
        let clients = OwnerClients::new(ca.certificate_der()).unwrap();
        let alice = ca.issue("alice", Role::Viewer, validity).unwrap();
        let bob = OwnerCa::create(validity).unwrap().issue("bob", Role::Admin, validity).unwrap();
        let accepts = |der: &[u8], now| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
            clients.verify_client_cert(&der.into(), &[], now)
        };
        for _ in 0..2 {
            assert!(accepts(alice.certificate_der(), NOW).is_ok());
            for (outside, error) in [(NOW + 11, "Expired"), (NOW - 11, "NotValidYet")] {
                let refused = accepts(alice.certificate_der(), outside).unwrap_err();
                assert!(format!("{refused:?}").contains(error), "{refused:?}");
            }
            assert!(accepts(bob.certificate_der(), NOW).is_err());
            let mut changed = alice.certificate_der().to_vec();
            *changed.last_mut().unwrap() ^= 1;
            assert!(accepts(&changed, NOW).is_err());
        }
    }

    #[test]
    fn only_so_many_are_remembered() {
        let validity = Validity { not_before: NOW, not_after: NOW };
        let ca = OwnerCa::create(validity).unwrap();
        let clients = OwnerClients::new(ca.certificate_der()).unwrap();
        for byte in 0..2 * KNOWN {
            clients.remember(&vec![byte as u8].into(), validity);
        }
        assert_eq!(clients.known.lock().unwrap().len(), KNOWN);
    }
}
