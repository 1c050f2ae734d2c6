//! `Pod.Handover`: from here on the host can no longer create or touch containers.

use postern_api::owner::HandoverResponse;
use postern_model::OperationKind;
use tonic::Status;

use super::{session::Session, status};

pub(super) async fn handover(session: &Session) -> Result<HandoverResponse, Status> {
    let permit = session.permit(OperationKind::Handover)?;
    let changed = session.pod().handover(permit).await.map_err(status::pod)?;
    Ok(HandoverResponse { changed, audit_records: session.shared.audit.recorded() })
}
