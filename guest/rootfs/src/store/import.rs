//! An image from an archive: spool, find the image, unpack its layers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures_util::{StreamExt, TryStreamExt, stream};
use postern_model::{ImageReference, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::{
    Inner, StoreError,
    archive::{self, ArchiveError, Found},
    operation::Operation,
    spool::{Spool, SpoolError, SpooledFile},
};
use crate::{
    Image, ProgressSender,
    layer::{Expected, LayerError},
    stream::pipe,
};

/// How long an archive may send nothing.
const IDLE: Duration = Duration::from_secs(120);
const CHUNK: usize = 64 << 10;
/// Layers unpacked at once.
const CONCURRENT_LAYERS: usize = 2;

/// Why an archive was not imported. Nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("archive cannot be received")]
    Receive(#[source] std::io::Error),
    #[error("archive sent nothing for {} seconds", IDLE.as_secs())]
    Stalled,
    #[error("archive cannot be read")]
    Archive(#[from] SpoolError),
    #[error("archive holds no image that can be used")]
    Image(#[from] ArchiveError),
    #[error("image has the digest {found}; the reference asks for {expected}")]
    Pinned { expected: Sha256, found: Sha256 },
    #[error("layer {index} of {count} is refused")]
    Layer { index: usize, count: usize, source: LayerError },
    #[error("image cannot be stored")]
    Store(#[from] StoreError),
}

pub(super) async fn import<R: AsyncRead + Send + Unpin>(
    operation: &Operation,
    store: &Arc<Inner>,
    archive: R,
    reference: Option<&ImageReference>,
    progress: &ProgressSender,
) -> Result<Image, ImportError> {
    let spool = Arc::new(spool(operation, store, archive, progress).await?);
    let (found, limits, wanted) = (Arc::clone(&spool), store.limits.clone(), reference.cloned());
    let found = operation.blocking(move || archive::find(&found, wanted.as_ref(), &limits)).await;
    let Found { plan, sources, names } = found.ok_or(StoreError::Stopped)??;
    if let Some(expected) = reference.and_then(ImageReference::digest).filter(|d| *d != plan.manifest_digest)
    {
        return Err(ImportError::Pinned { expected, found: plan.manifest_digest });
    }
    let count = sources.len();
    progress.send_modify(|progress| progress.layers_total = count as u32);
    let missing = missing(operation, sources)?;
    progress.send_modify(|progress| progress.layers_done = (count - missing.len()) as u32);
    stream::iter(missing)
        .map(|(index, file, expected)| {
            let spool = Arc::clone(&spool);
            async move {
                let failed = |source| ImportError::Layer { index: index + 1, count, source };
                let layer = spool.consume(file).map_err(|error| {
                    failed(LayerError::Directory(
                        rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
                    ))
                })?;
                operation.unpack(layer, expected).await.map_err(failed)?;
                progress.send_modify(|progress| progress.layers_done += 1);
                Ok::<_, ImportError>(())
            }
        })
        .buffer_unordered(CONCURRENT_LAYERS)
        .try_collect::<()>()
        .await?;
    let names = reference.map_or(names, |name| vec![name.clone()]);
    Ok(operation.store(plan, names).await?)
}

/// The layers that have to be unpacked, each once, with their place in the image. All are pinned before any is unpacked:
/// what the store has now, it has at the end.
fn missing(
    operation: &Operation,
    sources: Vec<(Option<SpooledFile>, Expected)>,
) -> Result<Vec<(usize, SpooledFile, Expected)>, ArchiveError> {
    let mut seen = BTreeSet::new();
    let mut missing = Vec::new();
    for (index, (file, expected)) in sources.into_iter().enumerate() {
        if !seen.insert(expected.diff_id) || operation.pin(expected.diff_id) {
            continue;
        }
        match (file, expected.blob) {
            (Some(file), _) => missing.push((index, file, expected)),
            (None, blob) => {
                let diff_id = expected.diff_id;
                let blob = blob.map_or(diff_id, |(digest, _)| digest);
                return Err(ArchiveError::LeftOut { blob, diff_id });
            }
        }
    }
    Ok(missing)
}

async fn spool<R: AsyncRead + Send + Unpin>(
    operation: &Operation,
    store: &Arc<Inner>,
    mut archive: R,
    progress: &ProgressSender,
) -> Result<Spool, ImportError> {
    let (writer, reader) = pipe();
    let inner = Arc::clone(store);
    let spool = operation.blocking(move || {
        let directory =
            inner.area.temporary().map_err(|errno| SpoolError::Write { name: "tmp".into(), errno })?;
        Spool::fill(reader, directory, inner.budget.charge(), &inner.limits)
    });
    let send = async {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            let length = match timeout(IDLE, archive.read_buf(&mut chunk)).await {
                Err(_) => return Err(ImportError::Stalled),
                Ok(read) => read.map_err(ImportError::Receive)?,
            };
            progress.send_modify(|progress| progress.received_bytes += length as u64);
            // A reader that is gone says itself why.
            if length == 0 {
                let _ = writer.finish().await;
                return Ok(());
            }
            if writer.send(chunk.freeze()).await.is_err() {
                return Ok(());
            }
        }
    };
    let (sent, spooled) = tokio::join!(send, spool);
    // What broke the transfer is the reason for what the reader makes of it.
    sent?;
    Ok(spooled.ok_or(StoreError::Stopped)??)
}
