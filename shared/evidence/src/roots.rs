//! The roots an owner trusts: AMD's, which come with this crate, and simulated ones, which never do.
//!
//! `roots/*.der` are AMD's public ARK and ASK certificates for Milan, Genoa and Turin, as
//! <https://kdsintf.amd.com/vcek/v1/{product}/cert_chain> serves them.

use std::{fmt, sync::Arc};

use postern_model::Sha256;
use ring::digest;

use crate::{
    memo::Memo,
    x509::{Certificate, CertificateError, KeyKind},
};

/// AMD's chains: name, ARK, ASK.
const AMD: [(&str, &[u8], &[u8]); 3] = [
    ("AMD Milan", include_bytes!("../roots/milan-ark.der"), include_bytes!("../roots/milan-ask.der")),
    ("AMD Genoa", include_bytes!("../roots/genoa-ark.der"), include_bytes!("../roots/genoa-ask.der")),
    ("AMD Turin", include_bytes!("../roots/turin-ark.der"), include_bytes!("../roots/turin-ask.der")),
];

/// Whose root it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RootKind {
    /// AMD's own: the key is in silicon.
    Amd,
    /// A simulated platform's: the key is in a file. Protects nothing.
    Simulated,
}

impl RootKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Simulated => "simulated",
        }
    }
}

impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A certificate that cannot be a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    #[error("root certificate cannot be read")]
    Certificate(#[from] CertificateError),
    #[error("root certificate is no PEM certificate")]
    Pem,
    #[error("root certificate {0} is not marked as a certificate authority")]
    NotAnAuthority(String),
    #[error("root certificate {0} is issued by another, or its key is not P-384")]
    NotARoot(String),
    #[error("root certificate {0} does not say SIMULATED in its name, as a simulated platform's does")]
    NotSimulated(String),
}

/// One root, with the name its owner knows it by.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    pub(crate) name: String,
    pub(crate) kind: RootKind,
    pub(crate) ark: Certificate,
    /// Known beforehand for AMD; handed out with the evidence by simulated platforms.
    pub(crate) ask: Option<Certificate>,
    fingerprint: Sha256,
}

impl TrustedRoot {
    /// The root of a simulated platform, as DER. It has to be its own issuer and to call itself simulated.
    pub fn simulated(name: impl Into<String>, ark_der: &[u8]) -> Result<Self, RootError> {
        let root = Self::new(name.into(), RootKind::Simulated, ark_der, None)?;
        let subject = &root.ark.subject_text;
        if !root.ark.is_authority {
            return Err(RootError::NotAnAuthority(subject.clone()));
        }
        if !subject.contains("SIMULATED") {
            return Err(RootError::NotSimulated(subject.clone()));
        }
        // Its own signature would prove nothing: what makes it a root is the owner's word.
        if root.ark.key_kind != KeyKind::P384 || root.ark.subject != root.ark.issuer {
            return Err(RootError::NotARoot(subject.clone()));
        }
        Ok(root)
    }

    /// The root of a simulated platform, as PEM.
    pub fn simulated_pem(name: impl Into<String>, pem: &[u8]) -> Result<Self, RootError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| RootError::Pem)?;
        if pem.label != "CERTIFICATE" {
            return Err(RootError::Pem);
        }
        Self::simulated(name, &pem.contents)
    }

    fn new(name: String, kind: RootKind, ark: &[u8], ask: Option<&[u8]>) -> Result<Self, RootError> {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, ark).as_ref());
        Ok(Self {
            name,
            kind,
            ark: Certificate::parse("ARK", ark)?,
            ask: ask.map(|der| Certificate::parse("ASK", der)).transpose()?,
            fingerprint: Sha256::new(fingerprint),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> RootKind {
        self.kind
    }

    /// Subject of the root certificate, as text.
    pub fn subject(&self) -> &str {
        &self.ark.subject_text
    }

    /// SHA-256 of the root certificate.
    pub fn fingerprint(&self) -> Sha256 {
        self.fingerprint
    }
}

/// A set of roots. Clones share what they remember of chains and reports that were verified.
#[derive(Debug, Clone, Default)]
pub struct TrustedRoots {
    roots: Arc<Vec<TrustedRoot>>,
    pub(crate) memo: Arc<Memo>,
}

impl TrustedRoots {
    /// No root at all: nothing verifies.
    pub fn none() -> Self {
        Self::default()
    }

    /// AMD's roots, built in.
    pub fn amd() -> Self {
        let roots = AMD
            .iter()
            .filter_map(|(name, ark, ask)| {
                // Data of this crate; a test holds that each of the three is read.
                TrustedRoot::new((*name).into(), RootKind::Amd, ark, Some(ask)).ok()
            })
            .collect();
        Self { roots: Arc::new(roots), memo: Arc::default() }
    }

    /// The same set and one root more.
    #[must_use]
    pub fn with(mut self, root: TrustedRoot) -> Self {
        Arc::make_mut(&mut self.roots).push(root);
        self.memo = Arc::default();
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = &TrustedRoot> {
        self.roots.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endorsement::is_signed_by;

    #[test]
    fn the_built_in_roots_are_amd_and_sign_their_ask() {
        let roots = TrustedRoots::amd();
        assert_eq!(
            roots.iter().map(TrustedRoot::name).collect::<Vec<_>>(),
            ["AMD Milan", "AMD Genoa", "AMD Turin"]
        );
        for root in roots.iter() {
            assert_eq!(root.kind(), RootKind::Amd);
            assert!(is_signed_by(&root.ark, &root.ark, KeyKind::Rsa));
            let ask = root.ask.as_ref().unwrap();
            assert!(ask.is_authority);
            assert!(is_signed_by(ask, &root.ark, KeyKind::Rsa), "{}", root.name());
        }
    }

    #[test]
    fn a_vendor_root_is_no_simulated_root() {
        let error = TrustedRoot::simulated("x", AMD[0].1).unwrap_err();
        assert!(matches!(error, RootError::NotSimulated(_)), "{error}");
        assert_eq!(TrustedRoot::simulated_pem("x", b"nonsense").unwrap_err(), RootError::Pem);
    }

    #[test]
    fn a_simulated_root_is_its_platforms_ark_and_nothing_below() {
        let platform = postern_simtee::Platform::ephemeral().unwrap();
        let root = TrustedRoot::simulated_pem("x", platform.root_pem().as_bytes()).unwrap();
        assert!(root.subject().contains("SIMULATED ARK"));
        let launch = postern_simtee::Launch::new(
            postern_model::Measurement::new([0; 48]),
            postern_model::HostData::new([0; 32]),
        );
        let guest = platform.launch(launch).unwrap();
        let table = crate::certificate_table::CertificateTable::parse(guest.certificates()).unwrap();
        let ask = TrustedRoot::simulated("x", table.ask.unwrap()).unwrap_err();
        assert!(matches!(ask, RootError::NotARoot(_)), "{ask}");
        let vcek = TrustedRoot::simulated("x", table.vcek.unwrap()).unwrap_err();
        assert!(matches!(vcek, RootError::NotAnAuthority(_)), "{vcek}");
    }
}
