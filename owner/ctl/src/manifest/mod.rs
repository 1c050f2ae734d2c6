//! Kubernetes Pod YAML as containers of a pod: the part that means the same here. Everything else is refused by name,
//! because a field that is silently dropped is a promise that is not kept.

mod convert;
mod schema;

use std::path::{Path, PathBuf};

use postern_model::{ContainerSpec, PodName};

use crate::failure::{Failure, OrFail};

/// Largest manifest that is read.
const MAX_MANIFEST: usize = 1 << 20;

/// Why a manifest is not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("{0}")]
    Yaml(String),
    #[error("{at}: {why}")]
    Field { at: String, why: String },
}

/// Reads a manifest for `pod`; `-` is standard input.
pub(crate) fn read(path: &Path, pod: &PodName) -> Result<Vec<ContainerSpec>, Failure> {
    let stdin = path == Path::new("-");
    let shown = if stdin { PathBuf::from("standard input") } else { path.to_owned() };
    let text = match stdin {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(path),
    };
    let text = text.or_fail(|| format!("cannot read {}", shown.display()))?;
    parse(&text, pod).or_fail(|| format!("cannot apply {}", shown.display()))
}

pub(crate) fn parse(text: &str, pod: &PodName) -> Result<Vec<ContainerSpec>, ManifestError> {
    if text.len() > MAX_MANIFEST {
        return Err(ManifestError::TooLarge);
    }
    let manifest: schema::Pod = serde_saphyr::from_str(text).map_err(|error| yaml_error(&error))?;
    convert::convert(manifest, pod)
}

/// The first line says what and where; the excerpt below it is for terminals wider than ours.
fn yaml_error(error: &serde_saphyr::Error) -> ManifestError {
    ManifestError::Yaml(error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests;
