//! What accompanies an image and is no part of it: the bill of materials and the provenance, beside `image.json`.

use std::{fs, io, path::Path, path::PathBuf};

use postern_launch::image::MANIFEST_FILE;

use crate::{
    build::{Agent, Image},
    lock::LOCK_FILE,
    provenance::{PROVENANCE_FILE, provenance},
    sbom::{SBOM_FILE, SbomError, sbom},
    sources::Crate,
};

/// Records that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Sbom(#[from] SbomError),
    #[error("writing the provenance")]
    Provenance(#[from] serde_json::Error),
}

/// Takes away what describes an image that is about to be replaced.
pub fn remove(directory: &Path) -> Result<(), RecordsError> {
    for file in [SBOM_FILE, PROVENANCE_FILE] {
        let path = directory.join(file);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RecordsError::Io { action: "replacing", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes both for the image in `directory`. `crates` is what its agent links, if that is known.
pub fn write(
    directory: &Path,
    image: &Image,
    agent: &Agent,
    crates: Option<&[Crate]>,
) -> Result<(), RecordsError> {
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read(&path).map_err(|source| RecordsError::Io { action: "reading", path, source })
    };
    let (manifest, lock) = (read(MANIFEST_FILE)?, read(LOCK_FILE)?);
    for (file, bytes) in [
        (SBOM_FILE, sbom(image, &manifest, crates)?),
        (PROVENANCE_FILE, provenance(image, &manifest, &lock, agent.made_by())?),
    ] {
        let path = directory.join(file);
        fs::write(&path, bytes).map_err(|source| RecordsError::Io { action: "writing", path, source })?;
    }
    Ok(())
}
