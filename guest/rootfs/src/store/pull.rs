//! An image from a registry: its documents, then its layers, unpacked while they arrive.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use postern_model::{ImageReference, Sha256};

use super::{Inner, StoreError, operation::Operation};
use crate::{
    Auth, Image, ProgressSender, Transport,
    layer::{Expected, LayerError},
    manifest::{Document, Manifest, ManifestError, Plan, PlannedLayer, choose},
    registry::{Registry, RequestError, Retry},
    stream::{PipeWriter, pipe, sha256},
};

/// Layers fetched and unpacked at once.
const CONCURRENT_LAYERS: usize = 2;
/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 4;

/// Why an image was not pulled. Nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("image cannot be fetched")]
    Request(#[from] RequestError),
    #[error("{what} has the digest {found}, not {expected}: the registry serves something else")]
    Digest { what: &'static str, expected: Sha256, found: Sha256 },
    #[error("image cannot be used")]
    Manifest(#[from] ManifestError),
    #[error("layer {index} of {count} cannot be fetched")]
    FetchLayer { index: usize, count: usize, source: RequestError },
    #[error("layer {index} of {count} is refused")]
    Layer { index: usize, count: usize, source: LayerError },
    #[error("image cannot be stored")]
    Store(#[from] StoreError),
}

pub(super) async fn pull(
    operation: &Operation,
    store: &Inner,
    reference: &ImageReference,
    auth: Auth,
    transport: Transport,
    progress: &ProgressSender,
) -> Result<Image, PullError> {
    let registry = Registry::new(reference, auth, transport, &store.roots)?;
    let plan = plan(&registry, store, reference).await?;
    let count = plan.layers.len();
    let mut seen = BTreeSet::new();
    let wanted: Vec<_> =
        plan.layers.iter().enumerate().filter(|(_, layer)| seen.insert(layer.diff_id)).collect();
    // Pinned before any is fetched: what is here now is here at the end.
    let missing: Vec<_> = wanted.into_iter().filter(|(_, layer)| !operation.pin(layer.diff_id)).collect();
    progress.send_modify(|progress| {
        progress.total_bytes = missing.iter().map(|(_, layer)| layer.size).sum();
        progress.layers_total = count as u32;
        progress.layers_done = (count - missing.len()) as u32;
    });
    fetch_all(operation, &registry, missing, count, progress).await?;
    Ok(operation.store(plan, vec![reference.clone()]).await?)
}

/// Boxed here, where its lifetimes have names: whoever spawns a pull could not show it to be `Send` otherwise.
fn fetch_all<'a>(
    operation: &'a Operation,
    registry: &'a Registry,
    layers: Vec<(usize, &'a PlannedLayer)>,
    count: usize,
    progress: &'a ProgressSender,
) -> BoxFuture<'a, Result<(), PullError>> {
    let fetch = move |(index, layer): (usize, &'a PlannedLayer)| async move {
        let at = LayerAt { index: index + 1, count };
        fetch_and_unpack(operation, registry, layer, at, progress).await?;
        progress.send_modify(|progress| progress.layers_done += 1);
        Ok::<_, PullError>(())
    };
    stream::iter(layers).map(fetch).buffer_unordered(CONCURRENT_LAYERS).try_collect().boxed()
}

async fn plan(registry: &Registry, store: &Inner, reference: &ImageReference) -> Result<Plan, PullError> {
    let limits = &store.limits;
    let (digest, manifest) = manifest(registry, reference, limits.document_bytes).await?;
    let limit = limits.document_bytes;
    // Asked for at its own size, so that a registry cannot send another.
    let config = registry.small_blob(&manifest.config.digest, manifest.config.size.min(limit)).await?;
    check("image configuration", manifest.config.digest, &config)?;
    Ok(Plan::new(digest, &manifest, &config, limits)?)
}

/// The image manifest, through indexes if need be; the digest is that of the manifest itself.
async fn manifest(
    registry: &Registry,
    reference: &ImageReference,
    limit: u64,
) -> Result<(Sha256, Manifest), PullError> {
    let mut expected = reference.digest();
    let mut wanted = match (expected, reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    for _ in 0..=MAX_NESTING {
        let bytes = registry.manifest(&wanted, limit).await?;
        let found = match expected {
            Some(expected) => check("manifest", expected, &bytes)?,
            None => sha256(&bytes),
        };
        match Document::parse(&bytes)? {
            Document::Manifest(manifest) => return Ok((found, manifest)),
            Document::Index(entries) => {
                let entry = choose(&entries, None)?;
                expected = Some(entry.digest);
                wanted = entry.digest.to_string();
            }
        }
    }
    Err(ManifestError::Nesting.into())
}

fn check(what: &'static str, expected: Sha256, bytes: &[u8]) -> Result<Sha256, PullError> {
    match sha256(bytes) {
        found if found == expected => Ok(found),
        found => Err(PullError::Digest { what, expected, found }),
    }
}

#[derive(Clone, Copy)]
struct LayerAt {
    index: usize,
    count: usize,
}

async fn fetch_and_unpack(
    operation: &Operation,
    registry: &Registry,
    layer: &PlannedLayer,
    LayerAt { index, count }: LayerAt,
    progress: &ProgressSender,
) -> Result<(), PullError> {
    let (writer, reader) = pipe();
    let expected = Expected { blob: Some((layer.blob, layer.size)), diff_id: layer.diff_id };
    let (fetched, unpacked) =
        tokio::join!(fetch(registry, layer, writer, progress), operation.unpack(reader, expected));
    match (fetched, unpacked) {
        (_, Ok(())) => Ok(()),
        (Err(source), Err(LayerError::CutOff)) => Err(PullError::FetchLayer { index, count, source }),
        (_, Err(source)) => Err(PullError::Layer { index, count, source }),
    }
}

/// Sends a layer's bytes, going on where a connection broke.
async fn fetch(
    registry: &Registry,
    layer: &PlannedLayer,
    writer: PipeWriter,
    progress: &ProgressSender,
) -> Result<(), RequestError> {
    let mut received = 0;
    let mut retry = Retry::default();
    loop {
        match transfer(registry, layer, &writer, &mut received, progress).await {
            Ok(Transfer::ReaderGone) => return Ok(()),
            // A short layer that ends cleanly is what this registry has: the reader says what is wrong with it.
            Ok(Transfer::Ended) => {
                let _ = writer.finish().await;
                return Ok(());
            }
            Err(error) => retry.after(error).await?,
        }
    }
}

enum Transfer {
    Ended,
    ReaderGone,
}

async fn transfer(
    registry: &Registry,
    layer: &PlannedLayer,
    writer: &PipeWriter,
    received: &mut u64,
    progress: &ProgressSender,
) -> Result<Transfer, RequestError> {
    let mut blob = registry.blob(&layer.blob, *received).await?;
    // What was received before, if the registry starts over.
    let mut skip = *received - blob.start;
    while let Some(chunk) = blob.chunk().await? {
        let fresh = fresh(chunk, &mut skip);
        let length = fresh.len() as u64;
        if writer.send(fresh).await.is_err() {
            return Ok(Transfer::ReaderGone);
        }
        *received += length;
        progress.send_modify(|progress| progress.received_bytes += length);
    }
    Ok(Transfer::Ended)
}

fn fresh(mut chunk: Bytes, skip: &mut u64) -> Bytes {
    let skipped = chunk.len().min(usize::try_from(*skip).unwrap_or(usize::MAX));
    *skip -= skipped as u64;
    chunk.split_off(skipped)
}
