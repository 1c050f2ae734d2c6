//! The index file: what the store holds, so that it can be opened again.
//!
//! Written whole and renamed into place. It is our own file in our own directory, yet nothing in it is believed that
//! the disk does not bear out: an image whose layers are not all there is left out.

use std::{collections::BTreeMap, fs::File, io::Write, sync::Arc};

use oci_spec::image::ImageConfiguration;
use postern_model::{ImageReference, Sha256};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use serde::{Deserialize, Serialize};

use super::{
    area::{Area, INDEX},
    state::{State, Stored},
};
use crate::{Limits, image::unix_millis};

const FORMAT: u32 = 1;
const NEW_INDEX: &str = "index.json.new";

/// Why the index could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the image store's index cannot be read")]
    Read(#[source] std::io::Error),
    #[error("the image store's index cannot be written")]
    Write(#[source] std::io::Error),
    #[error("the image store's index is not valid")]
    Malformed(#[source] serde_json::Error),
    #[error("the image store's index has format {0}, which this version does not know")]
    Format(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    images: Vec<Entry>,
    /// Bytes each layer is charged with, by diff id.
    layers: BTreeMap<Sha256, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    manifest: Sha256,
    config_digest: Sha256,
    anonymous: bool,
    names: Vec<String>,
    layers: Vec<Sha256>,
    config: ImageConfiguration,
}

pub(crate) fn write(area: &Area, state: &State) -> Result<(), IndexError> {
    let images = state.images().map(|(image, names)| Entry {
        manifest: image.manifest_digest,
        config_digest: image.config_digest,
        anonymous: image.anonymous,
        names: names.iter().map(ToString::to_string).collect(),
        layers: image.layers.to_vec(),
        config: ImageConfiguration::clone(&image.config),
    });
    let layers = state.layers().map(|(diff_id, bytes)| (*diff_id, bytes)).collect();
    let index = Index { format: FORMAT, images: images.collect(), layers };
    let bytes = serde_json::to_vec(&index).map_err(IndexError::Malformed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let written = openat(area.root(), NEW_INDEX, flags, Mode::RUSR | Mode::WUSR)
        .map_err(Into::into)
        .and_then(|file| File::from(file).write_all(&bytes))
        .and_then(|()| Ok(renameat(area.root(), NEW_INDEX, area.root(), INDEX)?));
    if written.is_err() {
        // Half a file would take room that was lacking.
        let _ = unlinkat(area.root(), NEW_INDEX, AtFlags::empty());
    }
    written.map_err(IndexError::Write)
}

/// What the index says and the disk bears out.
pub(crate) fn read(area: &Area, limits: &Limits) -> Result<State, IndexError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(area.root(), INDEX, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(State::default()),
        Err(error) => return Err(IndexError::Read(error.into())),
    };
    let index: Index =
        serde_json::from_reader(std::io::BufReader::new(file)).map_err(IndexError::Malformed)?;
    if index.format != FORMAT {
        return Err(IndexError::Format(index.format));
    }
    let mut state = State::default();
    for (diff_id, bytes) in index.layers {
        if area.layer(&diff_id).is_ok() {
            state.add_layer(diff_id, bytes);
        }
    }
    for entry in index.images.into_iter().take(limits.images) {
        if !entry.layers.iter().all(|layer| state.has_layer(layer)) {
            continue;
        }
        let names: Vec<ImageReference> = entry.names.iter().filter_map(|name| name.parse().ok()).collect();
        let created_unix_millis = entry.config.created().as_deref().and_then(unix_millis);
        let image = Stored {
            manifest_digest: entry.manifest,
            config_digest: entry.config_digest,
            anonymous: entry.anonymous,
            created_unix_millis,
            layers: entry.layers.into(),
            config: Arc::new(entry.config),
        };
        state.add(image, &names);
    }
    Ok(state)
}
