//! `Containers.CopyIn` and `CopyOut`: tar streams, worked on inside the container's own mount namespace.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use futures_util::{StreamExt, stream};
use postern_api::{
    bulk::Incoming,
    owner::{
        CopyInBegin, CopyInRequest, CopyInResponse, CopyOutBegin, CopyOutRequest, CopyOutResponse,
        copy_in_request, copy_out_response::Kind,
    },
};
use postern_container::{CopyInOptions, CopyOut, CopyOutOptions};
use postern_model::OperationKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;

use super::{
    service::Answers,
    session::{Session, container},
    status,
};
use crate::pod::PodError;

const CHUNK: usize = 256 << 10;

pub(super) async fn copy_in(
    session: &Session,
    mut input: Incoming<CopyInRequest>,
) -> Result<CopyInResponse, Status> {
    let Some(copy_in_request::Kind::Begin(begin)) = input.message().await?.and_then(|message| message.kind)
    else {
        return Err(Status::invalid_argument("the first message of a copy is not begin"));
    };
    let CopyInBegin { container: name, directory, preserve_owner } = begin;
    let name = container(name)?;
    let directory = absolute("directory", directory)?;
    let permit = session.permit(OperationKind::CopyIn)?;
    let options = CopyInOptions { preserve_owner };
    let mut copy = session.pod().copy_in(permit, &name, &directory, options).await.map_err(status::pod)?;
    while let Some(writer) = copy.writer.as_mut() {
        // A caller that breaks off drops this call, and with it the copy.
        let Some(message) = input.message().await? else { break };
        let Some(copy_in_request::Kind::Data(data)) = message.kind else {
            return Err(Status::invalid_argument("a message of the copy is not data"));
        };
        if writer.write_all(&data).await.is_err() {
            // The other side has given up; `finish` says why.
            break;
        }
    }
    copy.writer = None;
    let summary = copy.finish().await.map_err(PodError::failed("copying into the container"));
    let summary = summary.map_err(status::pod)?;
    Ok(CopyInResponse { entries: summary.entries, bytes: summary.bytes })
}

pub(super) async fn copy_out(
    session: &Session,
    request: CopyOutRequest,
) -> Result<Answers<CopyOutResponse>, Status> {
    let name = container(request.container)?;
    let path = absolute("path", request.path)?;
    let permit = session.permit(OperationKind::CopyOut)?;
    let options = CopyOutOptions { follow_link: request.follow_link };
    let copy = session.pod().copy_out(permit, &name, &path, options).await.map_err(status::pod)?;
    let begin = CopyOutBegin { total_bytes: copy.total_bytes, is_directory: copy.is_directory };
    let data = stream::unfold(Some((copy, BytesMut::new())), |state| async move {
        let (copy, buffer) = state?;
        let (answer, rest) = next(copy, buffer).await?;
        Some((answer.map(response), rest))
    });
    Ok(Box::pin(stream::iter([Ok(response(Kind::Begin(begin)))]).chain(data)))
}

type Step = (Result<Kind, Status>, Option<(CopyOut, BytesMut)>);

/// The next piece. At the end of the archive only its maker knows whether it was whole.
async fn next(mut copy: CopyOut, mut buffer: BytesMut) -> Option<Step> {
    buffer.reserve(CHUNK);
    match copy.reader.read_buf(&mut buffer).await {
        Ok(1..) => Some((Ok(Kind::Data(buffer.split().freeze())), Some((copy, buffer)))),
        Err(error) => {
            let error = PodError::failed("reading the archive")(error);
            Some((Err(status::pod(error)), None))
        }
        Ok(0) => match copy.finish().await {
            Ok(_) => None,
            Err(error) => {
                let error = PodError::failed("copying out of the container")(error);
                Some((Err(status::pod(error)), None))
            }
        },
    }
}

fn response(kind: Kind) -> CopyOutResponse {
    CopyOutResponse { kind: Some(kind) }
}

fn absolute(field: &'static str, path: String) -> Result<PathBuf, Status> {
    match Path::new(&path).is_absolute() && !path.contains('\0') {
        true => Ok(path.into()),
        false => Err(Status::invalid_argument(format!("{field} {path:?} is not an absolute path"))),
    }
}
