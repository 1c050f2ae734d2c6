//! The few facts of an X.509 certificate that a chain to a vendor root depends on, read once.
//!
//! AMD's certificates: VCEK specification 57230, section 3. Everything is copied out of the certificate so that a
//! parsed one can be kept.

use x509_parser::{
    certificate::X509Certificate,
    der_parser::{oid, oid::Oid},
    prelude::FromDer,
};

const RSA_ENCRYPTION: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const RSASSA_PSS: Oid<'static> = oid!(1.2.840.113549.1.1.10);
const EC_PUBLIC_KEY: Oid<'static> = oid!(1.2.840.10045.2.1);
const SECP384R1: Oid<'static> = oid!(1.3.132.0.34);
const ECDSA_WITH_SHA384: Oid<'static> = oid!(1.2.840.10045.4.3.3);

/// Why a certificate could not be used. `who` is the certificate's part in the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("{who} certificate is not one DER certificate")]
    Malformed { who: &'static str },
    #[error("{who} certificate has a key that is neither RSA nor EC P-384")]
    Key { who: &'static str },
    #[error("{who} certificate is signed with an algorithm that is neither RSA-PSS nor ECDSA with SHA-384")]
    Algorithm { who: &'static str },
}

/// Kind of a key, and of the signatures it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// RSA-PSS with SHA-384: AMD's ARK and ASK.
    Rsa,
    /// ECDSA P-384 with SHA-384: every VCEK, and the whole chain of a simulated platform.
    P384,
}

/// What a chain needs of one certificate.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) subject: Vec<u8>,
    pub(crate) subject_text: String,
    pub(crate) issuer: Vec<u8>,
    pub(crate) issuer_text: String,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) is_authority: bool,
    pub(crate) key_kind: KeyKind,
    /// As ring takes it: PKCS#1 `RSAPublicKey`, or an uncompressed point.
    pub(crate) key: Vec<u8>,
    pub(crate) signed: Vec<u8>,
    pub(crate) signed_with: KeyKind,
    pub(crate) signature: Vec<u8>,
    /// Extensions below AMD's arc: identifier in dotted form, content.
    pub(crate) amd_extensions: Vec<(String, Vec<u8>)>,
}

/// AMD's arc, below which the VCEK's extensions are (57230, section 3.1).
const AMD_ARC: &str = "1.3.6.1.4.1.3704.1.";

impl Certificate {
    pub(crate) fn parse(who: &'static str, der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = CertificateError::Malformed { who };
        let Ok((rest, parsed)) = X509Certificate::from_der(der) else { return Err(malformed) };
        if !rest.is_empty() || parsed.signature_algorithm != parsed.signature {
            return Err(malformed);
        }
        let spki = parsed.public_key();
        let key_kind = key_kind(&parsed).ok_or(CertificateError::Key { who })?;
        let signed_with = match &parsed.signature_algorithm.algorithm {
            oid if *oid == RSASSA_PSS => KeyKind::Rsa,
            oid if *oid == ECDSA_WITH_SHA384 => KeyKind::P384,
            _ => return Err(CertificateError::Algorithm { who }),
        };
        let constraints = parsed.basic_constraints().map_err(|_| malformed)?;
        let amd_extensions = parsed
            .extensions()
            .iter()
            .map(|extension| (extension.oid.to_id_string(), extension.value.to_vec()))
            .filter(|(oid, _)| oid.starts_with(AMD_ARC))
            .collect();
        Ok(Self {
            subject: parsed.subject().as_raw().to_vec(),
            subject_text: parsed.subject().to_string(),
            issuer: parsed.issuer().as_raw().to_vec(),
            issuer_text: parsed.issuer().to_string(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            key_kind,
            key: spki.subject_public_key.data.to_vec(),
            signed: parsed.tbs_certificate.as_ref().to_vec(),
            signed_with,
            signature: parsed.signature_value.data.to_vec(),
            amd_extensions,
        })
    }

    /// Content of the extension `1.3.6.1.4.1.3704.1.<suffix>`. Two of one kind count as none.
    pub(crate) fn amd_extension(&self, suffix: &str) -> Option<&[u8]> {
        let mut found =
            self.amd_extensions.iter().filter(|(oid, _)| oid.strip_prefix(AMD_ARC) == Some(suffix));
        let (_, content) = found.next()?;
        found.next().is_none().then_some(content)
    }
}

fn key_kind(certificate: &X509Certificate<'_>) -> Option<KeyKind> {
    let algorithm = &certificate.public_key().algorithm;
    if algorithm.algorithm == RSA_ENCRYPTION {
        return Some(KeyKind::Rsa);
    }
    let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
    (algorithm.algorithm == EC_PUBLIC_KEY && curve == SECP384R1).then_some(KeyKind::P384)
}

/// The value of a DER `INTEGER` between 0 and 255, which is how the VCEK carries security versions.
pub(crate) fn small_integer(der: &[u8]) -> Option<u8> {
    match *der {
        [0x02, 0x01, value] if value < 0x80 => Some(value),
        [0x02, 0x02, 0x00, value] if value >= 0x80 => Some(value),
        _ => None,
    }
}

/// The text of a DER `IA5String` of less than 128 bytes.
pub(crate) fn short_text(der: &[u8]) -> Option<&str> {
    let [0x16, length, text @ ..] = der else { return None };
    let printable = text.iter().all(|byte| (0x20..0x7f).contains(byte));
    (usize::from(*length) == text.len() && text.len() < 128 && printable)
        .then(|| std::str::from_utf8(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_have_one_encoding() {
        assert_eq!(small_integer(&[2, 1, 0]), Some(0));
        assert_eq!(small_integer(&[2, 1, 127]), Some(127));
        assert_eq!(small_integer(&[2, 2, 0, 206]), Some(206));
        for refused in [&[2, 1, 200][..], &[2, 2, 0, 5], &[2, 2, 1, 0], &[2, 1], &[4, 1, 0], &[2, 1, 0, 0]] {
            assert_eq!(small_integer(refused), None, "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Certificate::parse("any", &bytes);
            let _ = small_integer(&bytes);
            let _ = short_text(&bytes);
        }

        #[test]
        fn a_changed_certificate_is_read_without_panic(place in 0usize..1600, byte in any::<u8>()) {
            let mut der = include_bytes!("../roots/milan-ask.der").to_vec();
            let place = place % der.len();
            der[place] = byte;
            let _ = Certificate::parse("ASK", &der);
        }
    }
}
