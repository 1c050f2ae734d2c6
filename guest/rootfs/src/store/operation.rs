//! One import or pull under way: the layers it holds, the threads that unpack for it, and how it ends.
//!
//! However it ends (done, failed, cancelled in the middle of any await) the layers nobody needs are deleted once the
//! last of its threads is through.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use postern_model::{ImageReference, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use super::{Inner, index, index::IndexError, state::Stored};
use crate::{
    Image,
    image::unix_millis,
    layer::{Expected, LayerError, ingest},
    manifest::Plan,
};

/// Images received at once; more wait for their turn, so long.
pub(super) const CONCURRENT: usize = 4;
const TURN: Duration = Duration::from_secs(600);

/// Why an image whose layers are all there is not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{CONCURRENT} other images are being received; try again when one is done")]
    Busy,
    #[error("the store holds {0} images, which is its limit; remove images that are not needed")]
    TooManyImages(usize),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the thread that wrote the store ended early")]
    Stopped,
}

pub(crate) struct Operation {
    store: Arc<Inner>,
    pins: Mutex<Vec<Sha256>>,
    /// Held by every thread of this operation; the receiver ends when the last one is dropped.
    running: mpsc::Sender<()>,
    idle: Option<mpsc::Receiver<()>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Operation {
    pub(crate) async fn begin(store: &Arc<Inner>) -> Result<Self, StoreError> {
        let turn = timeout(TURN, Arc::clone(&store.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(StoreError::Busy);
        };
        let (running, idle) = mpsc::channel(1);
        Ok(Self {
            store: Arc::clone(store),
            pins: Mutex::default(),
            running,
            idle: Some(idle),
            turn: Some(turn),
        })
    }

    /// Keeps a layer from being deleted while this operation lasts; true if it is there already.
    pub(crate) fn pin(&self, diff_id: Sha256) -> bool {
        let mut state = self.store.state();
        state.pin(diff_id);
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).push(diff_id);
        state.has_layer(&diff_id)
    }

    /// Unpacks a layer on a thread that may block. Pin it first.
    pub(crate) async fn unpack(
        &self,
        stream: impl Read + Send + 'static,
        expected: Expected,
    ) -> Result<(), LayerError> {
        let store = Arc::clone(&self.store);
        let running = self.running.clone();
        let job = tokio::task::spawn_blocking(move || {
            let _running = running;
            store.take_layer(stream, &expected)
        });
        job.await.map_err(|_| LayerError::Stopped)?
    }

    /// Runs `work` on a thread that may block, counted as one of this operation's.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let running = self.running.clone();
        tokio::task::spawn_blocking(move || (work(), running).0).await.ok()
    }

    /// Stores the image; all its layers are pinned and there.
    pub(crate) async fn store(&self, plan: Plan, names: Vec<ImageReference>) -> Result<Image, StoreError> {
        let store = Arc::clone(&self.store);
        self.blocking(move || store.add(plan, &names)).await.ok_or(StoreError::Stopped)?
    }

    /// Waits for the threads and deletes what is not needed.
    pub(crate) async fn end(mut self) {
        if let Some(ending) = self.ending() {
            ending.await;
        }
    }

    fn ending(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut idle = self.idle.take()?;
        let turn = self.turn.take();
        let store = Arc::clone(&self.store);
        let pins = std::mem::take(&mut *self.pins.lock().unwrap_or_else(PoisonError::into_inner));
        // The operation's own sender goes; those of its threads remain.
        self.running = mpsc::channel(1).0;
        Some(async move {
            // Threads end by themselves: their streams are bounded by deadlines, or cut off by now.
            while idle.recv().await.is_some() {}
            let swept = tokio::task::spawn_blocking(move || {
                let mut state = store.state();
                pins.iter().for_each(|pin| state.unpin(pin));
                drop(state);
                store.sweep();
            });
            if swept.await.is_err() {
                tracing::error!("cleaning up after an image ended early");
            }
            // Whoever waits for a turn finds the room free, too.
            drop(turn);
        })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(ending) = self.ending() else { return };
        // Cancelled. Without a runtime the process is ending, and the next start cleans up.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(ending);
        }
    }
}

impl Inner {
    fn take_layer(&self, stream: impl Read, expected: &Expected) -> Result<(), LayerError> {
        let directory = self.area.temporary()?;
        let mut charge = self.budget.charge();
        let unpacked = ingest(stream, expected, directory.open()?, &self.limits, &mut charge)?;
        let mut state = self.state();
        if !state.has_layer(&expected.diff_id) {
            self.area.commit(&directory, &expected.diff_id)?;
            state.add_layer(expected.diff_id, charge.keep());
        }
        drop(state);
        let (devices, attributes) = (unpacked.skipped_devices, unpacked.skipped_attributes);
        tracing::trace!(devices, attributes, "layer unpacked; so much of it was left out");
        Ok(())
    }

    fn add(&self, plan: Plan, names: &[ImageReference]) -> Result<Image, StoreError> {
        let image = Stored {
            manifest_digest: plan.manifest_digest,
            config_digest: plan.config_digest,
            anonymous: names.is_empty(),
            created_unix_millis: plan.config.created().as_deref().and_then(unix_millis),
            layers: plan.layers.iter().map(|layer| layer.diff_id).collect(),
            config: plan.config,
        };
        self.keep(image, names)
    }

    /// Stores an image whose layers are all there.
    pub(super) fn keep(&self, image: Stored, names: &[ImageReference]) -> Result<Image, StoreError> {
        let manifest_digest = image.manifest_digest;
        let mut state = self.state();
        let mut changed = state.clone();
        changed.add(image, names);
        if changed.image_count() > self.limits.images {
            return Err(StoreError::TooManyImages(self.limits.images));
        }
        index::write(&self.area, &changed)?;
        *state = changed;
        let text = names.first().map_or_else(|| manifest_digest.to_string(), ToString::to_string);
        // Just stored, so it is found.
        state.resolve(&text).map_err(|_| StoreError::Stopped)
    }
}
