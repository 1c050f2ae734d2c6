//! `Pod.Release`: the owner ends the pod.

use postern_api::owner::ReleaseResponse;
use postern_model::OperationKind;
use tonic::Status;

use super::{session::Session, status};

pub(super) async fn release(session: &Session) -> Result<ReleaseResponse, Status> {
    let permit = session.permit(OperationKind::Release)?;
    session.pod().release(permit).await.map_err(status::pod)?;
    Ok(ReleaseResponse {})
}
