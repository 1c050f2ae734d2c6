//! Sends an image of this machine through the tunnel into the pod's store.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use postern_api::owner::{Image, PushBegin, PushDisk, PushRequest, push_request::Kind};
use postern_disk::PackedDisk;

use super::{
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
    File { path: PathBuf, file: File, size: u64 },
    Stdin,
}

/// Pushes `source` under `reference`; without one, under the name the image brings.
pub(crate) async fn push(
    session: &Session,
    source: &ImageSource,
    reference: Option<&str>,
) -> Result<Image, Failure> {
    source.check().or_fail(|| format!("cannot read image {source}"))?;
    if let ImageSource::Disk { path } = source {
        return push_disk(session, &open_disk(path)?, reference).await;
    }
    let opened = open(source)?;
    let (total, name) = match &opened {
        Opened::Layout(layout) => (Some(layout.total_bytes()), layout.name.clone()),
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
    let subject = Subject { pod: session.name(), doing: "push the image" };
    match pushed {
        Ok(response) => response.image.ok_or_else(|| {
            Failure::general("cannot push the image").caused_by("the pod did not say what it stored")
        }),
        Err(UploadError::Pod(status)) => Err(session.failure(subject, &status)),
        Err(UploadError::Local(error)) => Err(Failure::general("cannot push the image").caused_by(error)),
    }
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

fn open(source: &ImageSource) -> Result<Opened, Failure> {
    match source {
        // Not opened but told of: see `push_disk`.
        ImageSource::Stdin | ImageSource::Disk { .. } => Ok(Opened::Stdin),
        ImageSource::OciDirectory { path, tag } => Layout::open(path, tag.as_deref())
            .map(|layout| Opened::Layout(layout.into()))
            .or_fail(|| format!("cannot use image {source}")),
        ImageSource::Archive { path } => {
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
