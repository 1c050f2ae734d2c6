//! `Pod.Apply`: declares containers. Nothing is started by it; a host's trigger may start those that say so.

use postern_api::owner::{ApplyRequest, ApplyResponse};
use postern_model::{ContainerSpec, OperationKind};
use tonic::Status;

use super::{session::Session, status};

pub(super) async fn apply(session: &Session, request: ApplyRequest) -> Result<ApplyResponse, Status> {
    let specs = request.containers.into_iter().map(ContainerSpec::try_from).collect::<Result<Vec<_>, _>>();
    let specs = specs.map_err(status::bad_field)?;
    let permit = session.permit(OperationKind::Apply)?;
    let declared = session.pod().apply(permit, specs).await.map_err(status::pod)?;
    Ok(ApplyResponse { declared: declared.into_iter().map(String::from).collect() })
}
