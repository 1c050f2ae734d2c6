//! `Containers.Inspect`.

use postern_api::owner::{InspectRequest, InspectResponse};
use postern_model::OperationKind;
use tonic::Status;

use super::{
    session::{Session, container},
    status, wire,
};

pub(super) fn inspect(session: &Session, request: InspectRequest) -> Result<InspectResponse, Status> {
    let name = container(request.container)?;
    let permit = session.permit(OperationKind::InspectContainer)?;
    let container = session.pod().inspect(permit, &name).map_err(status::pod)?;
    Ok(InspectResponse {
        summary: Some(wire::summary(&container)),
        spec: Some((*container.spec).clone().into()),
        image_digest: container.image_digest.to_string(),
        oci_config: container.oci_config.to_string(),
        pid: container.pid.unwrap_or_default(),
        log_dropped_bytes: container.live.log.dropped_bytes(),
    })
}
