//! Sends an image of this machine through the tunnel into the pod's store.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use postern_api::owner::{Image, ListImagesRequest, PushBegin, PushDisk, PushRequest, push_request::Kind};
use postern_disk::PackedDisk;
use postern_model::Sha256;
use tonic::Code;

use super::{
    archive::Thinned,
    layout::{Layout, LayoutError},
    source::ImageSource,
};
use crate::{
    copy::{
        pipe::{PIECE, PipeWriter},
        transfer::{UploadError, upload},
    },
    door::{Session, Subject},
    failure::{Failure, OrFail},
    progress,
};

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("cannot read {0}")]
    Read(String, #[source] io::Error),
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// What is sent, opened: everything that can be wrong here is known before the pod hears of it.
enum Opened {
    Layout(Box<Layout>),
    Thinned(Thinned),
    File { path: PathBuf, file: File, size: u64 },
    Stdin,
}

/// Pushes `source` under `reference`; without one, under the name the image brings. Layers that the pod has are not sent.
pub(crate) async fn push(
    session: &Session,
    source: &ImageSource,
    reference: Option<&str>,
) -> Result<Image, Failure> {
    source.check().or_fail(|| format!("cannot read image {source}"))?;
    if let ImageSource::Disk { path } = source {
        return push_disk(session, &open_disk(path)?, reference).await;
    }
    let held = match source {
        // Cannot be looked through first.
        ImageSource::Stdin => HashSet::new(),
        _ => held(session).await?,
    };
    let opened = open(source, &held)?;
    let left_out = opened.left_out();
    match send(session, opened, reference).await {
        // Somebody may have removed in between what was left out for being there.
        Err(UploadError::Pod(status)) if left_out && status.code() != Code::Unavailable => {
            match held.is_subset(&self::held(session).await?) {
                true => Err(UploadError::Pod(status)),
                false => send(session, open(source, &HashSet::new())?, reference).await,
            }
        }
        sent => sent,
    }
    .map_err(|error| match error {
        UploadError::Pod(status) => {
            session.failure(Subject { pod: session.name(), doing: "push the image" }, &status)
        }
        UploadError::Local(error) => Failure::general("cannot push the image").caused_by(error),
    })?
    .ok_or_else(|| Failure::general("cannot push the image").caused_by("the pod did not say what it stored"))
}

/// Diff ids of the layers that the pod has. A pod that does not tell them is sent everything.
async fn held(session: &Session) -> Result<HashSet<Sha256>, Failure> {
    let mut images = session.images();
    let images =
        session.call("list the pod's images", async move { images.list(ListImagesRequest {}).await });
    let diff_ids = images.await?.images.into_iter().flat_map(|image| image.diff_ids);
    Ok(diff_ids.filter_map(|text| text.parse().ok()).collect())
}

async fn send(
    session: &Session,
    opened: Opened,
    reference: Option<&str>,
) -> Result<Option<Image>, UploadError<ReadError>> {
    let (total, name) = match &opened {
        Opened::Layout(layout) => (Some(layout.total_bytes()), layout.name.clone()),
        Opened::Thinned(thinned) => (Some(thinned.size), None),
        Opened::File { size, .. } => (Some(*size), None),
        Opened::Stdin => (None, None),
    };
    let reference = reference.map(str::to_owned).or(name).unwrap_or_default();
    let bar = match total {
        Some(total) => progress::bytes("pushing", total),
        None => progress::bytes_open("pushing"),
    };
    let first = PushRequest { kind: Some(Kind::Begin(PushBegin { reference })) };
    let wrap = |piece: bytes::Bytes| {
        bar.inc(piece.len() as u64);
        PushRequest { kind: Some(Kind::Data(piece)) }
    };
    let mut images = session.images();
    let pushed =
        upload(first, wrap, move |out| produce(opened, out), async |stream| images.push(stream).await).await;
    bar.finish_and_clear();
    Ok(pushed?.image)
}

/// What an image disk says of itself.
pub(super) fn open_disk(path: &Path) -> Result<PackedDisk, Failure> {
    let disk = PackedDisk::open(path).or_fail(|| format!("cannot use image disk {}", path.display()));
    disk.map_err(|failure| failure.hint("`postern image pack` makes one"))
}

/// Tells the pod what the disk must be that the host has attached; nothing of its content goes through the tunnel.
pub(crate) async fn push_disk(
    session: &Session,
    disk: &PackedDisk,
    reference: Option<&str>,
) -> Result<Image, Failure> {
    let PackedDisk { disk, manifest } = disk;
    let push = PushDisk {
        reference: reference.or(manifest.reference.as_deref()).unwrap_or_default().to_owned(),
        root_hash: disk.root_hash().as_bytes().to_vec(),
        data_blocks: disk.data_blocks(),
        digest: manifest.image.to_string(),
        config: manifest.config.clone().into_bytes(),
    };
    let request = tokio_stream::once(PushRequest { kind: Some(Kind::Disk(push)) });
    let response = session.call("use the image disk", session.images().push(request)).await?;
    response.image.ok_or_else(|| {
        Failure::general("cannot use the image disk").caused_by("the pod did not say what it stored")
    })
}

impl Opened {
    fn left_out(&self) -> bool {
        match self {
            Self::Layout(layout) => !layout.left_out().is_empty(),
            Self::Thinned(_) => true,
            Self::File { .. } | Self::Stdin => false,
        }
    }
}

/// Opens `source`, without the layers among `held`.
fn open(source: &ImageSource, held: &HashSet<Sha256>) -> Result<Opened, Failure> {
    match source {
        // Not opened but told of: see `push_disk`.
        ImageSource::Stdin | ImageSource::Disk { .. } => Ok(Opened::Stdin),
        ImageSource::OciDirectory { path, tag } => {
            let cannot = || format!("cannot use image {source}");
            let mut layout = Layout::open(path, tag.as_deref()).or_fail(cannot)?;
            layout.leave_out(held).or_fail(cannot)?;
            Ok(Opened::Layout(layout.into()))
        }
        ImageSource::Archive { path } => {
            if let Some(thinned) = Thinned::new(path, held) {
                return Ok(Opened::Thinned(thinned));
            }
            let cannot = || format!("cannot read {}", path.display());
            let file = File::open(path).or_fail(cannot)?;
            let size = file.metadata().or_fail(cannot)?.len();
            Ok(Opened::File { path: path.clone(), file, size })
        }
    }
}

fn produce(opened: Opened, mut out: PipeWriter) -> Result<(), ReadError> {
    match opened {
        Opened::Layout(layout) => Ok(layout.pack(out)?),
        Opened::Thinned(thinned) => {
            thinned.pack(out).map_err(|error| ReadError::Read(thinned.path.display().to_string(), error))
        }
        Opened::File { path, mut file, .. } => {
            stream(&mut file, &mut out).map_err(|error| ReadError::Read(path.display().to_string(), error))
        }
        Opened::Stdin => stream(&mut io::stdin().lock(), &mut out)
            .map_err(|error| ReadError::Read("standard input".into(), error)),
    }
}

fn stream(from: &mut impl Read, out: &mut PipeWriter) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return out.flush(),
            // A closed stream is the pod's doing, and its answer says more.
            Ok(read) if out.write_all(&buffer[..read]).is_err() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
