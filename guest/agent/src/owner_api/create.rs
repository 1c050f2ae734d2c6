//! `Containers.Create`.

use postern_api::owner::{CreateRequest, CreateResponse};
use postern_model::{ContainerSpec, OperationKind};
use tonic::Status;

use super::{session::Session, status};

pub(super) async fn create(session: &Session, request: CreateRequest) -> Result<CreateResponse, Status> {
    let spec = request.spec.ok_or_else(|| status::missing("spec"))?;
    let spec = ContainerSpec::try_from(spec).map_err(status::bad_field)?;
    let name = spec.name.clone();
    let permit = session.permit(OperationKind::CreateContainer)?;
    session.pod().create(permit, spec).await.map_err(status::pod)?;
    Ok(CreateResponse { name: name.into() })
}
