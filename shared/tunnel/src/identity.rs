//! The owner's side of authentication: the owner CA, and short-lived client certificates with one role each.
//!
//! Keys are P-256. A client certificate may do one thing, authenticate a client (EKU), and says in exactly one
//! URI `postern://role/<role>` (SAN) what that client may ask of a guest. Nothing here reads a clock.

use std::{fmt, sync::Arc, time::Duration};

use postern_model::{Role, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroize;

mod certificate;

pub use certificate::CertificateProblem;
pub(crate) use certificate::{ClientCertificate, authority};

/// Longest name of a client, in bytes (RFC 5280, appendix A.1, `ub-common-name`).
pub const MAX_CLIENT_NAME: usize = 64;
/// How far a certificate is dated back, for clocks that are not quite together.
const SKEW: u64 = 300;

/// Why an identity could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("name {0:?} is not 1 to {MAX_CLIENT_NAME} printable characters without '/'")]
    Name(String),
    #[error("validity ends before it begins")]
    Validity,
    #[error("{what} is not a PEM {label}")]
    Pem { what: &'static str, label: &'static str },
    #[error("{what} cannot be used")]
    Certificate { what: &'static str, source: CertificateProblem },
    #[error("private key does not belong to the certificate")]
    KeyMismatch,
    #[error("private key is not an unencrypted P-256 key in PKCS#8")]
    Key(#[source] rustls::Error),
    #[error("cannot make the key or certificate")]
    Make(#[from] rcgen::Error),
}

/// From when to when a certificate is valid, as Unix time in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

impl Validity {
    /// Valid from `now` for `lifetime`, and some minutes before, for clocks that are behind.
    pub fn starting(now: u64, lifetime: Duration) -> Self {
        Self { not_before: now.saturating_sub(SKEW), not_after: now.saturating_add(lifetime.as_secs()) }
    }

    pub fn contains(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    fn apply(&self, params: &mut CertificateParams) -> Result<(), IdentityError> {
        // Year 9999 (RFC 5280, section 4.1.2.5).
        const LAST: u64 = 253_402_300_799;
        if self.not_after < self.not_before || self.not_after > LAST {
            return Err(IdentityError::Validity);
        }
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.not_before);
        params.not_after = epoch + Duration::from_secs(self.not_after);
        Ok(())
    }
}

/// The authority over an owner's clients. Its certificate goes into init data; its key stays with the owner.
pub struct OwnerCa {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    validity: Validity,
}

impl OwnerCa {
    /// Makes a new authority.
    pub fn create(validity: Validity) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        validity.apply(&mut params)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Postern owner {}", short_digest(&key)));
        // No authority below this one.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, key, validity })
    }

    /// Reads what [`Self::certificate_pem`] and [`Self::key_pem`] wrote.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificate = certificate_from_pem("owner CA certificate", certificate)?;
        let facts = authority(&certificate)
            .map_err(|source| IdentityError::Certificate { what: "owner CA certificate", source })?;
        let key = key_from_pem("owner CA key", key)?;
        let pair = KeyPair::try_from(key.secret_pkcs8_der()).map_err(|_| {
            IdentityError::Key(rustls::Error::General("not a key this program can sign with".into()))
        });
        wipe(key);
        let pair = pair?;
        if rcgen::PublicKeyData::subject_public_key_info(&pair) != facts.spki {
            return Err(IdentityError::KeyMismatch);
        }
        Ok(Self { certificate, key: pair, validity: facts.validity })
    }

    /// Issues a client certificate with a new key.
    pub fn issue(&self, name: &str, role: Role, validity: Validity) -> Result<ClientIdentity, IdentityError> {
        let printable = name.chars().all(|c| !c.is_control() && c != '/');
        if name.is_empty() || name.len() > MAX_CLIENT_NAME || !printable {
            return Err(IdentityError::Name(name.chars().take(MAX_CLIENT_NAME).collect()));
        }
        let mut params = CertificateParams::default();
        validity.apply(&mut params)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(certificate::role_uri(role).try_into()?)];
        let mut key = KeyPair::generate()?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate = params.signed_by(&key, &issuer)?.der().clone();
        let identity = ClientIdentity::new(certificate, PrivatePkcs8KeyDer::from(key.serialize_der()));
        key.zeroize();
        identity
    }

    /// The certificate, as init data carries it.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(self.key.serialize_pem())
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl fmt::Debug for OwnerCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerCa").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Drop for OwnerCa {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// A client certificate of the owner's with its key. Cheap to clone.
#[derive(Clone)]
pub struct ClientIdentity {
    pub(crate) certified: Arc<CertifiedKey>,
    facts: Arc<ClientCertificate>,
    key: Arc<Secret<Vec<u8>>>,
}

impl ClientIdentity {
    /// Reads what [`Self::certificate_pem`] and [`Self::key_pem`] wrote. Does not look at the dates.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificate = certificate_from_pem("client certificate", certificate)?;
        Self::new(certificate, key_from_pem("client key", key)?)
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let secret = Secret::new(key.secret_pkcs8_der().to_vec());
        let facts = ClientCertificate::parse(&certificate)
            .map_err(|source| IdentityError::Certificate { what: "client certificate", source })?;
        let mut key = PrivateKeyDer::Pkcs8(key);
        let signer = any_ecdsa_type(&key);
        key.zeroize();
        let certified = CertifiedKey::new(vec![certificate], signer.map_err(IdentityError::Key)?);
        certified.keys_match().map_err(|_| IdentityError::KeyMismatch)?;
        Ok(Self { certified: Arc::new(certified), facts: Arc::new(facts), key: Arc::new(secret) })
    }

    /// Who this is, as the guest's audit will say.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    pub fn role(&self) -> Role {
        self.facts.role
    }

    pub fn validity(&self) -> Validity {
        self.facts.validity
    }

    pub fn certificate_der(&self) -> &[u8] {
        self.certified.cert.first().map_or(&[], |certificate| certificate)
    }

    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", self.certificate_der())
    }

    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(pem("PRIVATE KEY", self.key.expose()))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("facts", &self.facts).finish_non_exhaustive()
    }
}

fn certificate_from_pem(what: &'static str, pem: &[u8]) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem).map_err(|_| IdentityError::Pem { what, label: "CERTIFICATE" })
}

fn wipe(key: PrivatePkcs8KeyDer<'static>) {
    PrivateKeyDer::Pkcs8(key).zeroize();
}

fn key_from_pem(what: &'static str, pem: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, IdentityError> {
    PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| IdentityError::Pem { what, label: "PRIVATE KEY" })
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};

    let mut text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII.
        out.extend(line.iter().map(|&byte| char::from(byte)));
        out.push('\n');
    }
    text.zeroize();
    out + &format!("-----END {label}-----\n")
}

fn short_digest(key: &KeyPair) -> String {
    let spki = rcgen::PublicKeyData::subject_public_key_info(key);
    crate::instance::InstanceKey::of_spki(&spki).digest().to_hex()[..8].to_owned()
}
