//! What both ends read out of the owner's certificates, and how strictly.
//!
//! The TLS library checks signatures, dates and that a certificate *may* be a client's; here is what it leaves open:
//! the purpose has to be stated, and there has to be exactly one role.

use postern_model::Role;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{MAX_CLIENT_NAME, Validity};

const ROLE_URI: &str = "postern://role/";

/// Why a certificate is refused. Says nothing of signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    #[error("not one DER certificate")]
    Malformed,
    #[error("not a certificate authority's")]
    NotAnAuthority,
    #[error("not marked for client authentication (extended key usage)")]
    Purpose,
    #[error("a certificate authority's, which no client has")]
    Authority,
    #[error("names no role; one URI {ROLE_URI}<role> is expected")]
    NoRole,
    #[error("names more than one role")]
    SeveralRoles,
    #[error("names an unknown role")]
    UnknownRole,
    #[error("has no name of 1 to {MAX_CLIENT_NAME} printable characters")]
    Name,
    #[error("dates are out of range")]
    Dates,
}

/// The facts of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) validity: Validity,
}

/// The facts of the owner CA's certificate.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) spki: Vec<u8>,
    pub(crate) validity: Validity,
}

pub(crate) fn role_uri(role: Role) -> String {
    format!("{ROLE_URI}{role}")
}

impl ClientCertificate {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateProblem> {
        let certificate = parse(der)?;
        let purpose = certificate.extended_key_usage().map_err(|_| CertificateProblem::Malformed)?;
        if !purpose.is_some_and(|purpose| purpose.value.client_auth) {
            return Err(CertificateProblem::Purpose);
        }
        if certificate.is_ca() {
            return Err(CertificateProblem::Authority);
        }
        Ok(Self { name: name(&certificate)?, role: role(&certificate)?, validity: validity(&certificate)? })
    }
}

/// Reads a certificate that is to be an owner CA's.
pub(crate) fn authority(der: &[u8]) -> Result<Authority, CertificateProblem> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err(CertificateProblem::NotAnAuthority);
    }
    Ok(Authority { spki: certificate.public_key().raw.to_vec(), validity: validity(&certificate)? })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateProblem> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateProblem::Malformed),
    }
}

fn name(certificate: &X509Certificate<'_>) -> Result<String, CertificateProblem> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else { return Err(CertificateProblem::Name) };
    let name = name.as_str().map_err(|_| CertificateProblem::Name)?;
    let fits = !name.is_empty() && name.len() <= MAX_CLIENT_NAME && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned()).ok_or(CertificateProblem::Name)
}

fn role(certificate: &X509Certificate<'_>) -> Result<Role, CertificateProblem> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateProblem::Malformed)?;
    let mut roles = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(ROLE_URI),
        _ => None,
    });
    let role = roles.next().ok_or(CertificateProblem::NoRole)?;
    if roles.next().is_some() {
        return Err(CertificateProblem::SeveralRoles);
    }
    role.parse().map_err(|_| CertificateProblem::UnknownRole)
}

fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, CertificateProblem> {
    let seconds = |time: i64| u64::try_from(time).map_err(|_| CertificateProblem::Dates);
    Ok(Validity {
        not_before: seconds(certificate.validity().not_before.timestamp())?,
        not_after: seconds(certificate.validity().not_after.timestamp())?,
    })
}
