//! The guest's network as the host may shape it: before handover only, through named checks.
//!
//! The host owns the wire behind the interface, so everything on it is in its hands. What is kept from it is the rest:
//! loopback, the metadata address, interfaces that it did not bring, and sizes that would cost the guest.

mod checks;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postern_api::host;
use postern_model::{HostProvided, OperationKind, Verdict};
use postern_policy::Declared;

use super::{Admitted, Call, Status, decode, encoded, later, now};
use crate::{
    host_api::gate::Gate,
    init::network::{NetworkConfigurator, NetworkError},
};

/// What the host has brought, and who carries it out.
#[derive(Debug)]
pub(in crate::host_api) struct HostNetwork {
    configurator: Arc<dyn NetworkConfigurator>,
    /// One change at a time; held while one is carried out.
    turn: tokio::sync::Mutex<()>,
    brought: Mutex<Brought>,
}

/// The host's own words, given back to it when it asks. What the owner adds is not in here.
#[derive(Debug, Default, Clone)]
pub(super) struct Brought {
    interfaces: Vec<host::Interface>,
    routes: Vec<host::Route>,
}

impl HostNetwork {
    pub(in crate::host_api) fn new(configurator: Arc<dyn NetworkConfigurator>) -> Self {
        Self { configurator, turn: tokio::sync::Mutex::default(), brought: Mutex::default() }
    }

    fn brought(&self) -> MutexGuard<'_, Brought> {
        // Each change replaces whole values.
        self.brought.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network is frozen at handover, also for a change that waited for its turn.
fn still_permitted(gate: &Gate) -> Result<(), Status> {
    gate.permit(OperationKind::ConfigureNetwork, Declared::No).map(drop)
}

pub(super) fn update_interface(call: &Call<'_>) -> Admitted {
    let wire: host::UpdateInterfaceRequest = decode(call.payload)?;
    let wire = wire.interface.ok_or(Status::invalid("interface is missing"))?;
    let config = HostProvided::new(&wire).check(checks::interface)?;
    let gate = call.gate.clone();
    later(Verdict::Allowed, async move {
        let network = &gate.network;
        let _turn = network.turn.lock().await;
        still_permitted(&gate)?;
        network.brought().admits(&wire)?;
        network.configurator.update_interface(config).await?;
        network.brought().put_interface(wire.clone());
        encoded(&wire)
    })
}

pub(super) fn update_routes(call: &Call<'_>) -> Admitted {
    let wire: host::UpdateRoutesRequest = decode(call.payload)?;
    let wire = wire.routes.unwrap_or_default().routes;
    let routes = HostProvided::new(&*wire).check(checks::routes)?;
    let gate = call.gate.clone();
    later(Verdict::Allowed, async move {
        let network = &gate.network;
        let _turn = network.turn.lock().await;
        still_permitted(&gate)?;
        if !wire.iter().all(|route| network.brought().has_interface(&route.device)) {
            return Err(Status::invalid("route.device is not an interface set before"));
        }
        network.configurator.update_routes(routes).await?;
        network.brought().routes.clone_from(&wire);
        encoded(&host::Routes { routes: wire })
    })
}

pub(super) fn add_neighbors(call: &Call<'_>) -> Admitted {
    let wire: host::AddArpNeighborsRequest = decode(call.payload)?;
    let wire = wire.neighbors.unwrap_or_default().arp_neighbors;
    let neighbors = HostProvided::new(&*wire).check(checks::neighbors)?;
    let gate = call.gate.clone();
    later(Verdict::Allowed, async move {
        let network = &gate.network;
        let _turn = network.turn.lock().await;
        still_permitted(&gate)?;
        if !wire.iter().all(|neighbor| network.brought().has_interface(&neighbor.device)) {
            return Err(Status::invalid("neighbor.device is not an interface set before"));
        }
        network.configurator.add_neighbors(neighbors).await?;
        encoded(&host::Empty {})
    })
}

pub(super) fn list_interfaces(call: &Call<'_>) -> Admitted {
    let _permit = call.gate.permit(OperationKind::ListNetwork, Declared::No)?;
    let interfaces = call.gate.network.brought().interfaces.clone();
    now(Verdict::Sanitised, &host::Interfaces { interfaces })
}

pub(super) fn list_routes(call: &Call<'_>) -> Admitted {
    let _permit = call.gate.permit(OperationKind::ListNetwork, Declared::No)?;
    let routes = call.gate.network.brought().routes.clone();
    now(Verdict::Sanitised, &host::Routes { routes })
}

impl Brought {
    /// An interface keeps the name it was given, and a name its interface.
    fn admits(&self, interface: &host::Interface) -> Result<(), Status> {
        let same_card = |other: &&host::Interface| other.hw_addr.eq_ignore_ascii_case(&interface.hw_addr);
        match self.interfaces.iter().find(same_card) {
            Some(known) if known.name != interface.name => {
                Err(Status::invalid("interface has been given another name before"))
            }
            None if self.has_interface(&interface.name) => {
                Err(Status::invalid("interface name is taken by another interface"))
            }
            None if self.interfaces.len() == checks::MAX_INTERFACES => {
                Err(Status::invalid("too many interfaces"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn put_interface(&mut self, interface: host::Interface) {
        self.interfaces.retain(|other| other.name != interface.name);
        self.interfaces.push(interface);
    }

    fn has_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|interface| interface.name == name)
    }
}

impl From<NetworkError> for Status {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::NoSuchHardwareAddress(_)
            | NetworkError::NoSuchInterface(_)
            | NetworkError::NameTaken(_)
            | NetworkError::TooMany { .. } => Self::invalid("the guest has no such interface, or too many"),
            NetworkError::Open(_) | NetworkError::Netlink { .. } | NetworkError::Deadline { .. } => {
                Self::INTERNAL
            }
        }
    }
}
