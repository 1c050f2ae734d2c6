//! The pod's network as the host may configure it: validated values, and the trait that applies them.
//!
//! Every field arrives from the host, so a value of one of these types is already inside the bounds the guest
//! accepts; the only way in is fallible. `Netlink` applies them to the kernel, `Recorder` keeps them in memory
//! for an agent that runs as an ordinary process.

mod channel;
mod netlink;
mod recorder;
mod values;

#[cfg(test)]
mod tests;

use std::fmt::Debug;

use futures_util::future::BoxFuture;

pub use self::{
    netlink::Netlink,
    recorder::Recorder,
    values::{
        HardwareAddress, InterfaceAddress, InterfaceConfig, InterfaceName, Mtu, Neighbor, NetworkValueError,
        Route,
    },
};

/// How many interfaces, addresses of one interface and routes the guest takes from the host.
pub const MAX_INTERFACES: usize = 16;
pub const MAX_ADDRESSES: usize = 16;
pub const MAX_ROUTES: usize = 128;

/// Applies network configuration; the host endpoint calls it while the pod's phase allows.
pub trait NetworkConfigurator: Send + Sync + Debug {
    /// Brings the loopback interface up, once, before anything else is asked.
    fn start(&self) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// Finds the interface by its hardware address, gives it its name, addresses and MTU, and brings it up.
    /// Addresses that are not in `config` are taken away.
    fn update_interface(
        &self,
        config: InterfaceConfig,
    ) -> BoxFuture<'_, Result<InterfaceConfig, NetworkError>>;

    /// Replaces the routes of the main table (but for those the kernel made) by these.
    fn update_routes(&self, routes: Vec<Route>) -> BoxFuture<'_, Result<Vec<Route>, NetworkError>>;

    /// Adds permanent neighbours, or replaces those of the same address.
    fn add_neighbors(&self, neighbors: Vec<Neighbor>) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// Every interface but the loopback one.
    fn interfaces(&self) -> BoxFuture<'_, Result<Vec<InterfaceConfig>, NetworkError>>;

    fn routes(&self) -> BoxFuture<'_, Result<Vec<Route>, NetworkError>>;
}

/// Why the network could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("opening the route netlink socket")]
    Open(#[source] std::io::Error),
    #[error("no network interface has hardware address {0}")]
    NoSuchHardwareAddress(HardwareAddress),
    #[error("no network interface is named {0}")]
    NoSuchInterface(InterfaceName),
    #[error("interface name {0} is taken by another interface")]
    NameTaken(InterfaceName),
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("{what}")]
    Netlink { what: &'static str, source: std::io::Error },
    #[error("the kernel did not answer within {seconds} s while {what}")]
    Deadline { what: &'static str, seconds: u64 },
}
