//! Which guest it is, told apart from every other launch: the digest of the key it made at boot.

use std::{fmt, str::FromStr};

use postern_model::{DigestError, Sha256};
use ring::digest;

/// SHA-256 of the guest's public key (DER `SubjectPublicKeyInfo`). A new boot has a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceKey(Sha256);

/// Text that names no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance key is not written as sha256:<64 hexadecimal digits>")]
pub struct InstanceKeyError(#[from] DigestError);

impl InstanceKey {
    pub fn of_spki(spki_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, spki_der).as_ref());
        Self(Sha256::new(bytes))
    }

    pub fn digest(&self) -> Sha256 {
        self.0
    }
}

impl From<Sha256> for InstanceKey {
    fn from(digest: Sha256) -> Self {
        Self(digest)
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InstanceKey {
    type Err = InstanceKeyError;

    fn from_str(text: &str) -> Result<Self, InstanceKeyError> {
        Ok(Self(text.parse()?))
    }
}
