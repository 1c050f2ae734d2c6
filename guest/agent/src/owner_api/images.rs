//! `Images`: push, pull, list, remove.

use std::{future::Future, io, pin::Pin, time::Duration};

use futures_util::{StreamExt, stream};
use postern_api::owner::{
    ListImagesResponse, PullRequest, PullResponse, PushDisk, PushRequest, PushResponse, RemoveImageRequest,
    RemoveImageResponse, pull_response, push_request,
};
use postern_model::{DigestError, ImageDisk, ImageReference, OperationKind, Secret, Sha256};
use postern_rootfs::{Auth, DiskImage, Image, Progress, Transport};
use tokio::{sync::watch, time::sleep};
use tokio_util::io::StreamReader;
use tonic::{Status, Streaming};

use super::{service::Answers, session::Session, status, wire};
use crate::pod::PodError;

/// Progress is for eyes: more often than this helps nobody.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn push(
    session: &Session,
    mut input: Streaming<PushRequest>,
) -> Result<PushResponse, Status> {
    let begin = match input.message().await?.and_then(|message| message.kind) {
        Some(push_request::Kind::Begin(begin)) => begin,
        Some(push_request::Kind::Disk(disk)) => return push_disk(session, disk).await,
        _ => return Err(Status::invalid_argument("the first message of a push is neither begin nor disk")),
    };
    let reference = match begin.reference.is_empty() {
        true => None,
        false => Some(reference(&begin.reference)?),
    };
    let permit = session.permit(OperationKind::PushImage)?;
    let pieces = input.map(|message| match message.map(|message| message.kind) {
        Ok(Some(push_request::Kind::Data(data))) => Ok(data),
        Ok(Some(push_request::Kind::Begin(_) | push_request::Kind::Disk(_)) | None) => {
            Err(io::Error::other("a message of the push is not data"))
        }
        Err(status) => Err(io::Error::other(status)),
    });
    let archive = StreamReader::new(pieces);
    let image = session.pod().push(permit, archive, reference.as_ref()).await.map_err(status::pod)?;
    Ok(PushResponse { image: Some(wire::image(&image)) })
}

async fn push_disk(session: &Session, push: PushDisk) -> Result<PushResponse, Status> {
    let reference = match push.reference.is_empty() {
        true => None,
        false => Some(reference(&push.reference)?),
    };
    let root_hash = <[u8; Sha256::LENGTH]>::try_from(&push.root_hash[..]);
    let root_hash = root_hash.map_err(|_| Status::invalid_argument("root_hash has not 32 bytes"))?;
    let disk = ImageDisk::new(Sha256::new(root_hash), push.data_blocks);
    let image = DiskImage {
        disk: disk.map_err(|error| status::invalid(&error))?,
        manifest_digest: push.digest.parse().map_err(|error: DigestError| status::invalid(&error))?,
        config: push.config,
    };
    let permit = session.permit(OperationKind::PushImage)?;
    let image = session.pod().push_disk(permit, image, reference.as_ref()).await.map_err(status::pod)?;
    Ok(PushResponse { image: Some(wire::image(&image)) })
}

type Pulling = Pin<Box<dyn Future<Output = Result<Image, PodError>> + Send>>;

/// The pull runs as long as its caller listens: dropping the answers ends it.
pub(super) fn pull(session: &Session, request: PullRequest) -> Result<Answers<PullResponse>, Status> {
    let reference = reference(&request.reference)?;
    let auth = match request.username.is_empty() {
        true => Auth::Anonymous,
        false => Auth::Basic { username: request.username, password: Secret::new(request.password) },
    };
    let transport = if request.plain_http { Transport::PlainHttp } else { Transport::Tls };
    let permit = session.permit(OperationKind::PullImage)?;
    let (sender, progress) = watch::channel(Progress::default());
    let pod = session.pod().clone();
    let pulling: Pulling =
        Box::pin(async move { pod.pull(permit, &reference, auth, transport, &sender).await });
    Ok(Box::pin(stream::unfold(Some((pulling, progress)), |state| async move {
        let (mut pulling, mut progress) = state?;
        tokio::select! {
            biased;
            done = &mut pulling => {
                let answer = done.map(|image| pull_response::Kind::Done(wire::image(&image)));
                Some((answer.map(response).map_err(status::pod), None))
            }
            snapshot = next_progress(&mut progress) => {
                let answer = pull_response::Kind::Progress(wire::progress(snapshot));
                Some((Ok(response(answer)), Some((pulling, progress))))
            }
        }
    })))
}

async fn next_progress(progress: &mut watch::Receiver<Progress>) -> Progress {
    sleep(PROGRESS_INTERVAL).await;
    if progress.changed().await.is_err() {
        // The sender goes with the pull itself, which is about to answer.
        std::future::pending::<()>().await;
    }
    *progress.borrow_and_update()
}

fn response(kind: pull_response::Kind) -> PullResponse {
    PullResponse { kind: Some(kind) }
}

pub(super) async fn list(session: &Session) -> Result<ListImagesResponse, Status> {
    let permit = session.permit(OperationKind::ListImages)?;
    let images = session.pod().images(permit).map_err(status::pod)?;
    Ok(ListImagesResponse { images: images.iter().map(wire::image).collect() })
}

pub(super) async fn remove(
    session: &Session,
    request: RemoveImageRequest,
) -> Result<RemoveImageResponse, Status> {
    let permit = session.permit(OperationKind::RemoveImage)?;
    session.pod().remove_image(permit, &request.reference).await.map_err(status::pod)?;
    Ok(RemoveImageResponse {})
}

fn reference(text: &str) -> Result<ImageReference, Status> {
    text.parse().map_err(|error: postern_model::ReferenceError| status::invalid(&error))
}
