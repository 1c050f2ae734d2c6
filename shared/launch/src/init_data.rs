//! Init data: what the owner tells the guest at launch. Its digest goes into the launch (`HOST_DATA`), so the host that
//! carries it cannot change it.
//!
//! The text is Confidential Containers' init-data TOML with one entry, `postern.toml`. The guest reads it from a block
//! device laid out as Kata does it: `"initdata"`, length u64 little-endian, that many bytes of gzip, zeros to a multiple
//! of 512. One gzip member, nothing after it: two readers must never see two different texts.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use postern_model::{HostData, PodName};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

/// Largest device accepted, in bytes.
pub const MAX_DEVICE: usize = 4 << 20;
/// Largest text accepted, in bytes.
pub const MAX_TOML: usize = 1 << 20;
/// First bytes of the device.
pub const MAGIC: &[u8; 8] = b"initdata";

const HEADER_LENGTH: usize = 16;
const SECTOR: usize = 512;
const VERSION: &str = "0.1.0";
const ALGORITHM: &str = "sha256";
const ENTRY: &str = "postern.toml";
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// Init data that cannot be accepted, and why.
#[derive(Debug, thiserror::Error)]
pub enum InitDataError {
    #[error("device is empty: there is no init data")]
    Missing,
    #[error("device does not begin with {:?}: it holds no init data", "initdata")]
    Magic,
    #[error("{what} has {found} bytes; at most {limit} are accepted")]
    TooLarge { what: &'static str, limit: usize, found: u64 },
    #[error("device ends after {found} bytes where its header promises {expected}")]
    Truncated { expected: u64, found: u64 },
    #[error("device holds something after the init data")]
    TrailingData,
    #[error("compressed init data holds something after its only gzip member")]
    TrailingMember,
    #[error("init data is not valid gzip")]
    Gzip(#[source] std::io::Error),
    #[error("init data is not UTF-8 text")]
    NotText,
    #[error("init data is not the TOML that is expected")]
    Toml(#[source] Box<toml::de::Error>),
    #[error("init data has version {0:?}; this program reads {VERSION:?}")]
    Version(String),
    #[error("init data names digest algorithm {0:?}; HOST_DATA holds {ALGORITHM:?}")]
    Algorithm(String),
    #[error("init data has no entry {ENTRY:?}")]
    NoEntry,
    #[error("init data has an entry {0:?}, which nothing in this guest reads")]
    UnknownEntry(String),
    #[error("init data names {found} owners; a pod has one")]
    Owners { found: usize },
    #[error("field {field} of {ENTRY:?} {why}")]
    Field { field: &'static str, why: &'static str },
}

/// What the owner tells the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitData {
    pub pod: PodName,
    /// DER of the certificate that owner clients must chain to.
    pub owner_ca_der: Vec<u8>,
    /// Random, so that no two launches of a pod have the same digest.
    pub instance: [u8; 32],
    pub mode: Mode,
}

/// Where the guest's trust comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The owner CA in the init data, and nothing else.
    Direct,
}

impl InitData {
    /// How many owners the pod has: one, because [`decode_toml`] refuses every other number.
    pub fn owners(&self) -> usize {
        1
    }
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
        }
    }
}

/// Init data as text, with what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedInitData {
    toml: String,
}

impl EncodedInitData {
    /// Takes text that somebody wrote, if it is init data.
    pub fn from_toml(toml: &[u8]) -> Result<Self, InitDataError> {
        decode_toml(toml)?;
        let toml = std::str::from_utf8(toml).map_err(|_| InitDataError::NotText)?;
        Ok(Self { toml: toml.to_owned() })
    }

    /// The text.
    pub fn toml(&self) -> &str {
        &self.toml
    }

    /// SHA-256 of the text: what `HOST_DATA` must be.
    pub fn digest(&self) -> HostData {
        host_data(self.toml.as_bytes())
    }

    /// The block device that carries the text.
    pub fn device(&self) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        // Writing into a Vec cannot fail.
        let _ = std::io::Write::write_all(&mut gzip, self.toml.as_bytes());
        let compressed = gzip.finish().unwrap_or_default();
        let mut device = Vec::with_capacity(HEADER_LENGTH + compressed.len() + SECTOR);
        device.extend_from_slice(MAGIC);
        device.extend_from_slice(&(compressed.len() as u64).to_le_bytes());
        device.extend_from_slice(&compressed);
        device.resize(device.len().next_multiple_of(SECTOR), 0);
        device
    }
}

/// Writes `init_data` as text. The same value always gives the same bytes.
pub fn encode(init_data: &InitData) -> EncodedInitData {
    let toml = format!(
        "version = \"{VERSION}\"\nalgorithm = \"{ALGORITHM}\"\n\n[data]\n\"{ENTRY}\" = '''\n\
         pod = \"{pod}\"\ninstance = \"{instance}\"\nmode = \"{mode}\"\nowner_ca = \"\"\"\n{pem}\"\"\"\n'''\n",
        pod = init_data.pod,
        instance = hex::encode(init_data.instance),
        mode = init_data.mode.as_str(),
        pem = encode_pem(&init_data.owner_ca_der),
    );
    EncodedInitData { toml }
}

/// Reads a whole device: the init data and the digest that `HOST_DATA` must have.
pub fn decode_device(device: &[u8]) -> Result<(InitData, HostData), InitDataError> {
    let toml = unpack_device(device)?;
    Ok((decode_toml(&toml)?, host_data(&toml)))
}

/// Reads the text.
pub fn decode_toml(toml: &[u8]) -> Result<InitData, InitDataError> {
    if toml.len() > MAX_TOML {
        return Err(InitDataError::TooLarge { what: "init data", limit: MAX_TOML, found: toml.len() as u64 });
    }
    let text = std::str::from_utf8(toml).map_err(|_| InitDataError::NotText)?;
    let outer: OuterToml = toml::from_str(text).map_err(|error| InitDataError::Toml(Box::new(error)))?;
    if outer.version != VERSION {
        return Err(InitDataError::Version(bounded(outer.version)));
    }
    if outer.algorithm != ALGORITHM {
        return Err(InitDataError::Algorithm(bounded(outer.algorithm)));
    }
    // An entry that nobody reads is one that its owner relies on in vain.
    if let Some(unknown) = outer.data.keys().find(|key| *key != ENTRY) {
        return Err(InitDataError::UnknownEntry(bounded(unknown.clone())));
    }
    let entry = outer.data.get(ENTRY).ok_or(InitDataError::NoEntry)?;
    let inner: InnerToml = toml::from_str(entry).map_err(|error| InitDataError::Toml(Box::new(error)))?;
    let mut instance = [0; 32];
    hex::decode_to_slice(&inner.instance, &mut instance)
        .map_err(|_| InitDataError::Field { field: "instance", why: "is not 64 hexadecimal digits" })?;
    let found = inner.owner_ca.matches(PEM_BEGIN).count();
    if found > 1 {
        return Err(InitDataError::Owners { found });
    }
    let owner_ca_der = decode_pem(&inner.owner_ca)
        .ok_or(InitDataError::Field { field: "owner_ca", why: "is not one PEM certificate" })?;
    Ok(InitData { pod: inner.pod, owner_ca_der, instance, mode: inner.mode })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OuterToml {
    version: String,
    algorithm: String,
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InnerToml {
    pod: PodName,
    instance: String,
    mode: Mode,
    owner_ca: String,
}

fn host_data(toml: &[u8]) -> HostData {
    let mut bytes = [0; HostData::LENGTH];
    bytes.copy_from_slice(digest(&SHA256, toml).as_ref());
    HostData::new(bytes)
}

/// From the device to the text, within all bounds.
fn unpack_device(device: &[u8]) -> Result<Vec<u8>, InitDataError> {
    if device.iter().all(|&byte| byte == 0) {
        return Err(InitDataError::Missing);
    }
    if device.len() > MAX_DEVICE {
        return Err(InitDataError::TooLarge {
            what: "device",
            limit: MAX_DEVICE,
            found: device.len() as u64,
        });
    }
    let rest = match device.get(..MAGIC.len()) {
        Some(magic) if magic == MAGIC => &device[MAGIC.len()..],
        _ => return Err(InitDataError::Magic),
    };
    let found = device.len() as u64;
    let (length, rest) =
        rest.split_first_chunk().ok_or(InitDataError::Truncated { expected: HEADER_LENGTH as u64, found })?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_DEVICE as u64 {
        return Err(InitDataError::TooLarge {
            what: "compressed init data",
            limit: MAX_DEVICE,
            found: length,
        });
    }
    if length > rest.len() as u64 {
        return Err(InitDataError::Truncated { expected: length + HEADER_LENGTH as u64, found });
    }
    let (compressed, padding) = rest.split_at(length as usize);
    if padding.iter().any(|&byte| byte != 0) {
        return Err(InitDataError::TrailingData);
    }
    let mut decoder = GzDecoder::new(compressed);
    let mut toml = Vec::new();
    decoder.by_ref().take(MAX_TOML as u64 + 1).read_to_end(&mut toml).map_err(InitDataError::Gzip)?;
    if toml.len() > MAX_TOML {
        return Err(InitDataError::TooLarge { what: "init data", limit: MAX_TOML, found: toml.len() as u64 });
    }
    if !decoder.into_inner().is_empty() {
        return Err(InitDataError::TrailingMember);
    }
    Ok(toml)
}

fn encode_pem(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut pem = format!("{PEM_BEGIN}\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str(PEM_END);
    pem.push('\n');
    pem
}

/// Exactly one certificate and nothing around it.
fn decode_pem(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let base64: String = body.lines().map(str::trim).collect();
    let der = BASE64.decode(base64).ok()?;
    (!der.is_empty()).then_some(der)
}

/// What somebody else wrote, short enough for an error message.
fn bounded(mut text: String) -> String {
    let end = text.char_indices().map(|(at, _)| at).nth(64).unwrap_or(text.len());
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
