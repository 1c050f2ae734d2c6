//! Names of container images.

use std::{fmt, str::FromStr};

use crate::{DigestError, Sha256};

/// Longest image reference accepted, in bytes.
pub const MAX_REFERENCE: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("image reference is empty")]
    Empty,
    #[error("image reference has {0} characters; at most {MAX_REFERENCE} are allowed")]
    TooLong(usize),
    #[error("image reference {0:?} is not of the form [REGISTRY/]NAME[:TAG][@sha256:DIGEST]")]
    Malformed(String),
    #[error("image reference has a bad digest")]
    Digest(#[from] DigestError),
}

/// `[registry/]repository[:tag][@sha256:digest]`, with docker's defaults made explicit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    /// `host[:port]`; `docker.io` when none was given.
    registry: String,
    /// Path in the registry; `library/` is put before one-part names on docker.io.
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256>,
}

impl ImageReference {
    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `latest` when neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag.as_deref(),
        }
    }

    pub fn digest(&self) -> Option<Sha256> {
        self.digest
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_REFERENCE {
            return Err(ReferenceError::TooLong(text.len()));
        }
        let malformed = || ReferenceError::Malformed(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed());
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => ("docker.io", name),
        };
        if !path.split('/').all(is_path_component) || !is_registry(registry) {
            return Err(malformed());
        }
        let repository = match registry == "docker.io" && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

fn is_path_component(part: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            alphanumeric(first)
                && alphanumeric(last)
                && bytes.iter().all(|&c| alphanumeric(c) || matches!(c, b'.' | b'_' | b'-'))
        }
        _ => false,
    }
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
        && !matches!(bytes[0], b'.' | b'-')
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_out_the_defaults() {
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("10.0.2.2:5000/busybox", "10.0.2.2:5000/busybox:latest"),
            ("localhost/x/y:Z", "localhost/x/y:Z"),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), full);
        }
        let pinned = format!("r.io/x@sha256:{}", "0".repeat(64));
        assert_eq!(pinned.parse::<ImageReference>().unwrap().to_string(), pinned);
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for text in ["", "A", "../x", "a//b", "a:", "a@sha256:1", "r.io:99999/x", "a b", "-a", "x/", "/x"] {
            assert!(text.parse::<ImageReference>().is_err(), "{text:?}");
        }
    }
}
