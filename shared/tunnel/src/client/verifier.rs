//! Where TLS asks whether to believe the guest's certificate, and evidence answers.
//!
//! Runs inside the handshake, before the client's own certificate is sent. TLS itself then verifies that the peer
//! holds the certificate's key.

use std::sync::{Mutex, PoisonError};

use postern_evidence::{Appraisal, AppraisalError, Check, Evidence, appraise, binding, verify};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{CheckFailure, Expectation, ExpectedInstance};
use crate::{guest::GuestCertificate, instance::InstanceKey, provider};

/// A guest's TLS key that its evidence vouches for.
#[derive(Debug)]
pub(super) struct AttestedKey {
    pub(super) appraisal: Appraisal,
    pub(super) instance: InstanceKey,
    /// Certificates that came with the evidence, for the session's evidence, which need not repeat them.
    pub(super) certificates: Vec<u8>,
}

/// Verifier of one connection: its verdict is kept for the one who connects.
#[derive(Debug)]
pub(super) struct GuestVerifier {
    expectation: Expectation,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: Mutex<Option<Result<AttestedKey, CheckFailure>>>,
}

impl GuestVerifier {
    pub(super) fn new(expectation: Expectation) -> Self {
        let algorithms = provider::provider().signature_verification_algorithms;
        Self { expectation, algorithms, verdict: Mutex::new(None) }
    }

    pub(super) fn take_attested(&self) -> Option<AttestedKey> {
        self.take()?.ok()
    }

    pub(super) fn take_failure(&self) -> Option<CheckFailure> {
        self.take()?.err()
    }

    fn take(&self) -> Option<Result<AttestedKey, CheckFailure>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn appraise(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<AttestedKey, CheckFailure> {
        let GuestCertificate { spki, evidence } = GuestCertificate::parse(end_entity, intermediates)?;
        let Expectation { roots, reference_values, instance, now } = &self.expectation;
        let verified = verify(&evidence, roots, *now)?;
        let report_data = binding::certificate_key(&spki);
        let appraisal = appraise(verified, reference_values, &report_data, Check::KeyBinding)?;
        let found = InstanceKey::of_spki(&spki);
        match *instance {
            ExpectedInstance::Same(expected) if expected != found => {
                Err(CheckFailure::Instance { expected, found })
            }
            ExpectedInstance::Same(_) | ExpectedInstance::FirstContact => {
                Ok(AttestedKey { appraisal, instance: found, certificates: evidence.certificates })
            }
        }
    }
}

impl ServerCertVerifier for GuestVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.appraise(end_entity, intermediates);
        let passed = verdict.is_ok();
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        if passed {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![provider::SCHEME]
    }
}

/// Appraises evidence given inside a session; it has to be the same launch's as the certificate's.
pub(super) fn appraise_session(
    evidence: &Evidence,
    expectation: &Expectation,
    report_data: &[u8; 64],
    report_id: &[u8; 32],
) -> Result<Appraisal, CheckFailure> {
    let verified = verify(evidence, &expectation.roots, expectation.now)?;
    let appraised: Result<Appraisal, AppraisalError> =
        appraise(verified, &expectation.reference_values, report_data, Check::SessionBinding);
    let appraisal = appraised?;
    if appraisal.report().report_id != *report_id {
        return Err(CheckFailure::OtherGuest);
    }
    Ok(appraisal)
}
