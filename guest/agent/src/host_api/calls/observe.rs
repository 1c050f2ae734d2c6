//! What the host may see: constants, coarse counters, and that memory ran out.

use postern_api::host;
use postern_model::{OperationKind, Verdict};
use postern_policy::Declared;

use super::{Admitted, Call, Status, container::Target, decode, encoded, later, now};

/// The version of Kata's ttRPC protocol that shims look for.
const PROTOCOL_VERSION: &str = "0.0.1";
/// The version of this endpoint. It says nothing of the agent's build.
const ENDPOINT_VERSION: &str = "postern-host-api-1";
/// Size of a memory block on x86-64 guests below 64 GiB; a constant, whatever this guest has.
const MEMORY_BLOCK: u64 = 128 << 20;

/// Serving, in every phase: the phase is not told.
pub(super) fn check() -> Admitted {
    let status = host::health_check_response::ServingStatus::Serving.into();
    now(Verdict::Allowed, &host::HealthCheckResponse { status })
}

pub(super) fn version() -> Admitted {
    let answer = host::VersionCheckResponse {
        grpc_version: PROTOCOL_VERSION.into(),
        agent_version: ENDPOINT_VERSION.into(),
    };
    now(Verdict::Sanitised, &answer)
}

pub(super) fn guest_details(call: &Call<'_>) -> Admitted {
    let wire: host::GuestDetailsRequest = decode(call.payload)?;
    let _permit = call.gate.permit(OperationKind::GuestDetails, Declared::No)?;
    let details = host::AgentDetails {
        version: ENDPOINT_VERSION.into(),
        init_daemon: true,
        device_handlers: Vec::new(),
        storage_handlers: Vec::new(),
        supports_seccomp: true,
    };
    let answer = host::GuestDetailsResponse {
        mem_block_size_bytes: if wire.mem_block_size { MEMORY_BLOCK } else { 0 },
        agent_details: Some(details),
        support_mem_hotplug_probe: false,
    };
    now(Verdict::Sanitised, &answer)
}

pub(super) fn metrics(call: &Call<'_>) -> Admitted {
    let _permit = call.gate.permit(OperationKind::Metrics, Declared::No)?;
    let gate = call.gate.clone();
    later(Verdict::Sanitised, async move {
        encoded(&host::Metrics { metrics: gate.sanitiser.metrics(gate.pod.phase()).await })
    })
}

/// The pod's counters, whichever container is named: one container's would tell what it does.
pub(super) fn stats(call: &Call<'_>) -> Admitted {
    Target::read(call.payload)?.known(call).map_err(|_| Status::NO_CONTAINER)?;
    let permit = call.gate.permit(OperationKind::StatsSanitised, Declared::No)?;
    let gate = call.gate.clone();
    later(Verdict::Sanitised, async move {
        let usage = gate.sanitiser.usage(gate.pod.usage(permit)).await?;
        let cpu = host::CpuUsage { total_usage: usage.cpu_usage_nanos };
        let memory = host::MemoryData { usage: usage.memory_bytes };
        let stats = host::CgroupStats {
            cpu_stats: Some(host::CpuStats { cpu_usage: Some(cpu) }),
            memory_stats: Some(host::MemoryStats { usage: Some(memory) }),
        };
        encoded(&host::StatsContainerResponse { cgroup_stats: Some(stats) })
    })
}

/// Waits for the next event. One call at a time on a connection; events between two calls are kept for it.
pub(super) fn oom_event(call: &Call<'_>) -> Admitted {
    let permit = call.gate.permit(OperationKind::OomEvents, Declared::No)?;
    let Ok(mut events) = call.session.oom.clone().try_lock_owned() else {
        return Err(Status::EXHAUSTED.into());
    };
    let pod = call.gate.pod.clone();
    later(Verdict::Sanitised, async move {
        let events = match &mut *events {
            Some(events) => events,
            none => none.insert(pod.oom_events(permit)?),
        };
        match events.next().await {
            Some(id) => encoded(&host::OomEvent { container_id: id.as_str().to_owned() }),
            None => Err(Status::ENDED),
        }
    })
}
