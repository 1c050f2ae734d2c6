//! `Pod.Inspect`: the pod as the guest itself sees it.

use postern_api::owner::{BootStage, InspectPodResponse};
use postern_model::OperationKind;
use tonic::Status;

use super::{session::Session, status};
use crate::{clock, system};

pub(super) async fn inspect_pod(session: &Session) -> Result<InspectPodResponse, Status> {
    let permit = session.permit(OperationKind::InspectPod)?;
    let pod = session.pod().status(permit).map_err(status::pod)?;
    let memory = system::memory();
    Ok(InspectPodResponse {
        pod: session.shared.name.to_string(),
        phase: pod.view.phase.as_str().to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: system::kernel_release(),
        hostname: pod.view.hostname.clone(),
        uptime_millis: clock::boottime_micros() / 1000,
        memory_total_bytes: memory.total_bytes,
        memory_available_bytes: memory.available_bytes,
        cpus: system::cpus(),
        containers: u32::try_from(pod.view.containers.len()).unwrap_or(u32::MAX),
        images: u32::try_from(pod.images).unwrap_or(u32::MAX),
        role: session.peer.role.as_str().to_owned(),
        boot: session
            .shared
            .boot
            .iter()
            .map(|stamp| BootStage {
                name: stamp.step.to_owned(),
                boottime_micros: u64::try_from(stamp.at.as_micros()).unwrap_or(u64::MAX),
            })
            .collect(),
    })
}
