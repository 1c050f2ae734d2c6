//! Sends an image of this machine through the tunnel into the pod's store.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
};

use postern_api::owner::{Image, PushBegin, PushRequest, push_request::Kind};

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

fn open(source: &ImageSource) -> Result<Opened, Failure> {
    match source {
        ImageSource::Stdin => Ok(Opened::Stdin),
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
