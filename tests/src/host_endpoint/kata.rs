//! Requests as a Kata shim makes them.

use std::collections::HashMap;

use postern_api::host;

/// Ids as containerd makes them.
pub const PAUSE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub const WEB: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// Annotations that containerd adds.
pub const TYPE: &str = "io.kubernetes.cri.container-type";
pub const NAME: &str = "io.kubernetes.cri.container-name";

pub fn create(id: &str, annotations: &[(&str, &str)]) -> host::CreateContainerRequest {
    let annotations: HashMap<_, _> =
        annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    host::CreateContainerRequest { container_id: id.into(), oci: Some(host::Spec { annotations }) }
}

pub fn start(id: &str) -> host::StartContainerRequest {
    host::StartContainerRequest { container_id: id.into() }
}

/// A process of a container: what WaitProcess takes, and the beginning of many other requests.
pub fn process(id: &str, exec: &str) -> host::WaitProcessRequest {
    host::WaitProcessRequest { container_id: id.into(), exec_id: exec.into() }
}

pub fn signal(id: &str, exec: &str, signal: u32) -> host::SignalProcessRequest {
    host::SignalProcessRequest { container_id: id.into(), exec_id: exec.into(), signal }
}

pub fn read(id: &str, len: u32) -> host::ReadStreamRequest {
    host::ReadStreamRequest { container_id: id.into(), exec_id: id.into(), len }
}

pub fn remove(id: &str) -> host::RemoveContainerRequest {
    host::RemoveContainerRequest { container_id: id.into(), timeout: 0 }
}

/// An interface as a network plugin makes it.
pub fn eth0() -> host::Interface {
    host::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        ip_addresses: vec![host::IpAddress { family: 0, address: "10.0.2.15".into(), mask: "24".into() }],
        mtu: 1500,
        hw_addr: "52:54:00:12:34:56".into(),
        ..Default::default()
    }
}

pub fn update(interface: host::Interface) -> host::UpdateInterfaceRequest {
    host::UpdateInterfaceRequest { interface: Some(interface) }
}

pub fn routes(routes: Vec<host::Route>) -> host::UpdateRoutesRequest {
    host::UpdateRoutesRequest { routes: Some(host::Routes { routes }) }
}
