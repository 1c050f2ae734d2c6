//! The host's part of the guest's start: wait for the agent, configure sandbox and network. What a shim does elsewhere.

use std::time::{Duration, Instant};

use postern_api::host::{
    CheckRequest, CreateSandboxRequest, Empty, HealthCheckResponse, Interface, IpAddress, IpFamily, Route,
    Routes, UpdateInterfaceRequest, UpdateRoutesRequest, health_check_response::ServingStatus,
};
use postern_launch::{GUEST_ADDRESS, GUEST_MAC};
use postern_model::PodName;
use prost::Message;

use super::StartError;
use crate::{
    client::{AGENT_SERVICE, HEALTH_SERVICE, HostClient},
    vsock::VsockAddress,
};

/// How long one call may take; generous, for a guest that is emulated on a busy machine.
const CALL: Duration = Duration::from_secs(30);
/// How long one look at the agent's health may take.
const CHECK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

// QEMU's user network (docs/system/devices/net.rst, "Using the user mode network stack").
const GATEWAY: &str = "10.0.2.2";
const NAME_SERVER: &str = "10.0.2.3";
const PREFIX_LENGTH: &str = "24";
const INTERFACE: &str = "eth0";
const MTU: u64 = 1500;

/// The agent did not answer in time.
#[derive(Debug)]
pub(super) struct NoAnswer;

/// Where and until when the agent is expected.
pub(super) struct Answering<'a> {
    pub address: &'a VsockAddress,
    pub port: u32,
    pub deadline: Instant,
}

impl Answering<'_> {
    /// A connection to an agent that says it serves.
    pub(super) async fn agent(&self) -> Result<HostClient, NoAnswer> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoAnswer);
            }
            let client = HostClient::connect(self.address, self.port, left).await.map_err(|_| NoAnswer)?;
            let check = CheckRequest::default();
            let answer: Result<HealthCheckResponse, _> =
                client.request(HEALTH_SERVICE, "Check", &check, CHECK.min(left)).await;
            if answer.is_ok_and(|answer| answer.status() == ServingStatus::Serving) {
                return Ok(client);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Configures the sandbox and its network.
pub(super) async fn configure(client: &HostClient, name: &PodName) -> Result<(), StartError> {
    let sandbox = CreateSandboxRequest {
        hostname: name.to_string(),
        dns: vec![NAME_SERVER.into()],
        sandbox_id: name.to_string(),
        ..Default::default()
    };
    call::<Empty>(client, "CreateSandbox", &sandbox).await?;
    let address =
        IpAddress { family: IpFamily::V4.into(), address: GUEST_ADDRESS.into(), mask: PREFIX_LENGTH.into() };
    let interface = Interface {
        device: INTERFACE.into(),
        name: INTERFACE.into(),
        ip_addresses: vec![address],
        mtu: MTU,
        hw_addr: GUEST_MAC.into(),
        ..Default::default()
    };
    let update = UpdateInterfaceRequest { interface: Some(interface) };
    call::<Interface>(client, "UpdateInterface", &update).await?;
    // An empty destination is the default route, as Kata's runtime writes it.
    let route = Route { gateway: GATEWAY.into(), device: INTERFACE.into(), ..Default::default() };
    let update = UpdateRoutesRequest { routes: Some(Routes { routes: vec![route] }) };
    call::<Routes>(client, "UpdateRoutes", &update).await?;
    Ok(())
}

async fn call<A: Message + Default>(
    client: &HostClient,
    method: &'static str,
    request: &impl Message,
) -> Result<A, StartError> {
    let answer = client.request(AGENT_SERVICE, method, request, CALL).await;
    answer.map_err(|source| StartError::GuestRefused { method, source })
}
