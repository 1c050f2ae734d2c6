//! Digests: of image content (SHA-256), of a launch (SHA-384), of init data (SHA-256, in `HOST_DATA`).

use std::{fmt, str::FromStr};

/// A digest that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("digest algorithm {0:?} is not supported; use sha256")]
    Algorithm(String),
    #[error("digest has {found} hexadecimal digits, not {expected}")]
    Length { expected: usize, found: usize },
    #[error("digest is not lower-case hexadecimal")]
    NotHex,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], DigestError> {
    if text.len() != N * 2 {
        return Err(DigestError::Length { expected: N * 2, found: text.len() });
    }
    if !text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) {
        return Err(DigestError::NotHex);
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestError::NotHex)?;
    Ok(bytes)
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $length]);

        impl $name {
            pub const LENGTH: usize = $length;

            pub const fn new(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Lower-case hexadecimal, without an algorithm prefix.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }

            /// Reads lower-case hexadecimal without a prefix.
            pub fn from_hex(text: &str) -> Result<Self, DigestError> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }
    };
}

digest!(
    /// SHA-256 of content, written `sha256:<64 hex>` as OCI does (image-spec 1.1, descriptor, "Digests").
    Sha256, 32
);
digest!(
    /// A launch measurement: SHA-384, `MEASUREMENT` of an SNP report (SEV-SNP Firmware ABI, `ATTESTATION_REPORT` structure).
    Measurement, 48
);
digest!(
    /// SHA-256 of the init data, `HOST_DATA` of an SNP report (SEV-SNP Firmware ABI, `ATTESTATION_REPORT` structure).
    HostData, 32
);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl FromStr for Sha256 {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Self::from_hex(hex),
            Some((algorithm, _)) => Err(DigestError::Algorithm(algorithm.into())),
            None => Err(DigestError::Algorithm(String::new())),
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for HostData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

macro_rules! serde_as_text {
    ($name:ident, $parse:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let parse: fn(&str) -> Result<Self, DigestError> = $parse;
                parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Sha256, Sha256::from_str);
serde_as_text!(Measurement, Measurement::from_hex);
serde_as_text!(HostData, HostData::from_hex);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let digest = Sha256::new([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let measurement = Measurement::new([7; 48]);
        assert_eq!(Measurement::from_hex(&measurement.to_string()), Ok(measurement));
    }

    #[test]
    fn refuses_bad_digests() {
        assert_eq!("md5:00".parse::<Sha256>(), Err(DigestError::Algorithm("md5".into())));
        assert_eq!("sha256:00".parse::<Sha256>(), Err(DigestError::Length { expected: 64, found: 2 }));
        assert_eq!(format!("sha256:{}", "A".repeat(64)).parse::<Sha256>(), Err(DigestError::NotHex));
    }
}
