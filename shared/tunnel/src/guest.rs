//! The guest's identity: a key born at boot, and a certificate that carries evidence over it.
//!
//! The certificate is signed by its own key and by nobody else: what makes it believable is the evidence. Its dates
//! mean nothing, since the guest's clock is the host's.

use std::sync::Arc;

use postern_evidence::{CollectError, Evidence, EvidenceSource, binding};
use postern_model::PodName;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroize;

use crate::{
    extension::{self, ExtensionError},
    instance::InstanceKey,
};

/// Why a guest has no identity.
#[derive(Debug, thiserror::Error)]
pub enum GuestIdentityError {
    #[error("cannot make the guest's key and certificate")]
    Key(#[from] rcgen::Error),
    #[error("TLS library refuses the guest's key")]
    Tls(#[from] rustls::Error),
    #[error("TEE gave no evidence over the guest's key")]
    Evidence(#[from] CollectError),
    #[error("evidence does not fit into a certificate")]
    Extension(#[from] ExtensionError),
}

/// Key and certificate of a running guest. The key cannot be taken out.
#[derive(Debug)]
pub struct GuestIdentity {
    pub(crate) certified: Arc<CertifiedKey>,
    evidence: Evidence,
    instance: InstanceKey,
}

impl GuestIdentity {
    /// Makes a key, asks the TEE for evidence over it, and wraps both into a certificate. Blocks.
    pub fn new(pod: &PodName, source: &dyn EvidenceSource) -> Result<Self, GuestIdentityError> {
        let mut key = KeyPair::generate()?;
        let made = Self::with_key(pod, source, &key);
        key.zeroize();
        made
    }

    fn with_key(
        pod: &PodName,
        source: &dyn EvidenceSource,
        key: &KeyPair,
    ) -> Result<Self, GuestIdentityError> {
        let spki = key.subject_public_key_info();
        let evidence = source.evidence(&binding::certificate_key(&spki))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, pod.as_str());
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(extension::OID, extension::encode(&evidence)?)];
        let certificate = params.self_signed(key)?.der().clone();

        let mut pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = any_ecdsa_type(&pkcs8);
        pkcs8.zeroize();
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(vec![certificate], signer?)),
            evidence,
            instance: InstanceKey::of_spki(&spki),
        })
    }

    /// The evidence in the certificate: what this guest's platform says of it.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// By what a client tells this guest from every other launch.
    pub fn instance(&self) -> InstanceKey {
        self.instance
    }
}

/// Why a certificate cannot be a guest's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestCertificateError {
    #[error("guest sent {0} certificates, not one")]
    Chain(usize),
    #[error("guest's certificate is not one DER certificate")]
    Malformed,
    #[error("guest's certificate carries no evidence")]
    NoEvidence,
    #[error("guest's certificate carries two pieces of evidence")]
    TwoPieces,
    #[error("evidence in the guest's certificate cannot be read")]
    Extension(#[from] ExtensionError),
}

/// What a client needs of a guest's certificate.
#[derive(Debug)]
pub(crate) struct GuestCertificate {
    pub(crate) spki: Vec<u8>,
    pub(crate) evidence: Evidence,
}

impl GuestCertificate {
    pub(crate) fn parse(
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Self, GuestCertificateError> {
        if !intermediates.is_empty() {
            return Err(GuestCertificateError::Chain(intermediates.len() + 1));
        }
        let Ok((rest, certificate)) = X509Certificate::from_der(end_entity) else {
            return Err(GuestCertificateError::Malformed);
        };
        if !rest.is_empty() {
            return Err(GuestCertificateError::Malformed);
        }
        let mut found = certificate
            .extensions()
            .iter()
            .filter(|one| one.oid.iter().is_some_and(|arcs| arcs.eq(extension::OID.iter().copied())));
        let wrapper = found.next().ok_or(GuestCertificateError::NoEvidence)?;
        if found.next().is_some() {
            return Err(GuestCertificateError::TwoPieces);
        }
        Ok(Self { spki: certificate.public_key().raw.to_vec(), evidence: extension::decode(wrapper.value)? })
    }
}
