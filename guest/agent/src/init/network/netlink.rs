//! Applies the pod's network configuration to the kernel over route netlink.
//!
//! One socket, opened at the first use and shared by all calls; every call has a deadline. Calls change one
//! thing after the other under a lock, because "make it so" is several netlink messages.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
            RouteScope, RouteType,
        },
    },
};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    HardwareAddress, InterfaceAddress, InterfaceConfig, InterfaceName, MAX_ADDRESSES, MAX_ROUTES, Mtu,
    Neighbor, NetworkConfigurator, NetworkError, Route,
};

/// Netlink answers within microseconds; a kernel that does not within this is not going to.
const DEADLINE: Duration = Duration::from_secs(5);

/// The network of this network namespace.
#[derive(Default)]
pub struct Netlink {
    connection: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

struct Connection {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Brings the loopback interface up (the kernel gives it its addresses); call it within the runtime.
    pub async fn start() -> Result<Self, NetworkError> {
        let network = Self::default();
        network.loopback_up().await?;
        Ok(network)
    }

    async fn loopback_up(&self) -> Result<(), NetworkError> {
        let connection = self.lock().await?;
        // The loopback device of a network namespace is always its first (net/core/dev.c, LOOPBACK_IFINDEX).
        let up = LinkUnspec::new_with_index(1).up().build();
        ask("bringing the loopback interface up", connection.handle.link().set(up).execute()).await
    }

    async fn lock(&self) -> Result<HeldConnection<'_>, NetworkError> {
        let mut slot = self.connection.lock().await;
        let alive = slot.as_ref().filter(|connection| !connection.task.is_finished());
        let handle = match alive.map(|connection| connection.handle.clone()) {
            Some(handle) => handle,
            None => {
                let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Open)?;
                *slot = Some(Connection { handle: handle.clone(), task: tokio::spawn(connection) });
                handle
            }
        };
        Ok(HeldConnection { handle, _slot: slot })
    }

    async fn set_interface(&self, config: InterfaceConfig) -> Result<InterfaceConfig, NetworkError> {
        if config.addresses.len() > MAX_ADDRESSES {
            return Err(NetworkError::TooMany { what: "addresses", limit: MAX_ADDRESSES });
        }
        let connection = self.lock().await?;
        let links = connection.links().await?;
        let link = links
            .iter()
            .find(|link| link.hardware_address == config.hardware_address)
            .ok_or(NetworkError::NoSuchHardwareAddress(config.hardware_address))?;
        if links.iter().any(|other| other.index != link.index && other.name == config.name.as_str()) {
            return Err(NetworkError::NameTaken(config.name));
        }
        connection.name_and_mtu(link, &config).await?;
        connection.set_addresses(link.index, &config.addresses).await?;
        let up = LinkUnspec::new_with_index(link.index).up().build();
        ask("bringing an interface up", connection.handle.link().set(up).execute()).await?;
        let mtu = config.mtu.or_else(|| Mtu::new(link.mtu.into()).ok());
        Ok(InterfaceConfig { mtu, ..config })
    }

    async fn list_interfaces(&self) -> Result<Vec<InterfaceConfig>, NetworkError> {
        let connection = self.lock().await?;
        let mut found = Vec::new();
        for link in connection.links().await? {
            // What has a name the host could not have given (another kind of device) is none of its business.
            let Ok(name) = link.name.parse() else { continue };
            let addresses = connection.addresses(link.index).await?.iter().filter_map(read_address).collect();
            let mtu = Mtu::new(link.mtu.into()).ok();
            let (hardware_address, arp) = (link.hardware_address, link.arp);
            found.push(InterfaceConfig { hardware_address, name, addresses, mtu, arp });
        }
        Ok(found)
    }

    async fn set_routes(&self, routes: Vec<Route>) -> Result<Vec<Route>, NetworkError> {
        if routes.len() > MAX_ROUTES {
            return Err(NetworkError::TooMany { what: "routes", limit: MAX_ROUTES });
        }
        let connection = self.lock().await?;
        let links = connection.links().await?;
        let mut messages = Vec::with_capacity(routes.len());
        for route in &routes {
            let link = links
                .iter()
                .find(|link| link.name == route.interface().as_str())
                .ok_or_else(|| NetworkError::NoSuchInterface(route.interface().clone()))?;
            // The kernel makes the route to an interface's own network itself, when the address is set.
            let own_network =
                route.gateway().is_none() && connection.is_own_network(link.index, route).await?;
            if !own_network {
                messages.push((route.gateway().is_some(), route_message(route, link.index)));
            }
        }
        for old in connection.static_routes().await? {
            ask("removing a route", connection.handle.route().del(old).execute()).await?;
        }
        // Those without a gateway first: they are how a gateway is reached.
        messages.sort_by_key(|(through_gateway, _)| *through_gateway);
        for (_, message) in messages {
            ask("adding a route", connection.handle.route().add(message).replace().execute()).await?;
        }
        Ok(routes)
    }

    async fn set_neighbors(&self, neighbors: Vec<Neighbor>) -> Result<(), NetworkError> {
        let connection = self.lock().await?;
        let links = connection.links().await?;
        for neighbor in neighbors {
            let link = links
                .iter()
                .find(|link| link.name == neighbor.interface.as_str())
                .ok_or_else(|| NetworkError::NoSuchInterface(neighbor.interface.clone()))?;
            let add = connection
                .handle
                .neighbours()
                .add(link.index, neighbor.address)
                .link_layer_address(neighbor.hardware_address.as_bytes())
                .replace();
            ask("adding a neighbour", add.execute()).await?;
        }
        Ok(())
    }

    async fn list_routes(&self) -> Result<Vec<Route>, NetworkError> {
        let connection = self.lock().await?;
        let names: HashMap<u32, InterfaceName> = connection
            .links()
            .await?
            .into_iter()
            .filter_map(|link| Some((link.index, link.name.parse().ok()?)))
            .collect();
        Ok(connection.static_routes().await?.iter().filter_map(|route| read_route(route, &names)).collect())
    }
}

impl NetworkConfigurator for Netlink {
    fn update_interface(
        &self,
        config: InterfaceConfig,
    ) -> BoxFuture<'_, Result<InterfaceConfig, NetworkError>> {
        self.set_interface(config).boxed()
    }

    fn update_routes(&self, routes: Vec<Route>) -> BoxFuture<'_, Result<Vec<Route>, NetworkError>> {
        self.set_routes(routes).boxed()
    }

    fn add_neighbors(&self, neighbors: Vec<Neighbor>) -> BoxFuture<'_, Result<(), NetworkError>> {
        self.set_neighbors(neighbors).boxed()
    }

    fn interfaces(&self) -> BoxFuture<'_, Result<Vec<InterfaceConfig>, NetworkError>> {
        self.list_interfaces().boxed()
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<Route>, NetworkError>> {
        self.list_routes().boxed()
    }
}

/// The connection for as long as one change takes: nobody else changes anything meanwhile.
struct HeldConnection<'a> {
    handle: Handle,
    _slot: MutexGuard<'a, Option<Connection>>,
}

/// What the guest reads of a link; the loopback interface and whatever is not Ethernet have no station address.
struct Link {
    index: u32,
    name: String,
    hardware_address: HardwareAddress,
    mtu: u32,
    arp: bool,
}

impl HeldConnection<'_> {
    async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>();
        Ok(ask("listing interfaces", links).await?.iter().filter_map(read_link).collect())
    }

    /// A link is renamed only while it is down.
    async fn name_and_mtu(&self, link: &Link, config: &InterfaceConfig) -> Result<(), NetworkError> {
        let change = |message: LinkMessageBuilder<LinkUnspec>| {
            ask("naming an interface", self.handle.link().set(message.build()).execute())
        };
        if link.name != config.name.as_str() {
            change(LinkUnspec::new_with_index(link.index).down()).await?;
            change(LinkUnspec::new_with_index(link.index).name(config.name.as_str())).await?;
        }
        if let Some(mtu) = config.mtu.filter(|mtu| mtu.bytes() != link.mtu) {
            change(LinkUnspec::new_with_index(link.index).mtu(mtu.bytes())).await?;
        }
        if config.arp != link.arp {
            change(LinkUnspec::new_with_index(link.index).arp(config.arp)).await?;
        }
        Ok(())
    }

    async fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, NetworkError> {
        let all = self.handle.address().get().set_link_index_filter(index).execute();
        let all: Vec<AddressMessage> = ask("listing addresses", all.try_collect()).await?;
        // Link-local addresses that the kernel gave itself are not the host's to take away.
        let given = |message: &AddressMessage| {
            message.header.scope != AddressScope::Link
                || message.header.flags.contains(AddressHeaderFlags::Permanent)
                    && !matches!(message_address(message), Some(IpAddr::V6(_)))
        };
        Ok(all.into_iter().filter(given).collect())
    }

    async fn set_addresses(&self, index: u32, wanted: &[InterfaceAddress]) -> Result<(), NetworkError> {
        let mut present = Vec::new();
        for message in self.addresses(index).await? {
            match read_address(&message) {
                Some(address) if wanted.contains(&address) => present.push(address),
                _ => {
                    let gone = self.handle.address().del(message).execute();
                    ask("removing an address", gone).await?;
                }
            }
        }
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            let add = self.handle.address().add(index, address.address(), address.prefix_length());
            ask("adding an address", add.replace().execute()).await?;
        }
        Ok(())
    }

    /// Routes of the main table that were configured: those the kernel made for itself are left out.
    async fn static_routes(&self) -> Result<Vec<RouteMessage>, NetworkError> {
        let mut found = Vec::new();
        let ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for query in [ipv4, ipv6] {
            let routes = self.handle.route().get(query).execute().try_collect::<Vec<_>>();
            found.extend(ask("listing routes", routes).await?.into_iter().filter(|route| {
                route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast
                    && !matches!(route.header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra)
            }));
        }
        Ok(found)
    }

    async fn is_own_network(&self, index: u32, route: &Route) -> Result<bool, NetworkError> {
        let Some((destination, length)) = route.destination() else { return Ok(false) };
        let addresses = self.addresses(index).await?;
        Ok(addresses.iter().filter_map(read_address).any(|address| {
            address.prefix_length() == length && network(address.address(), length) == Some(destination)
        }))
    }
}

async fn ask<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetworkError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(answer) => answer.map_err(|source| NetworkError::Netlink { what, source }),
        Err(_) => Err(NetworkError::Deadline { what, seconds: DEADLINE.as_secs() }),
    }
}

fn route_message(route: &Route, index: u32) -> RouteMessage {
    let mut message = reach(route, index);
    if route.is_on_link() {
        message.header.flags.insert(RouteFlags::Onlink);
    }
    if let Some(mtu) = route.mtu() {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu.bytes())]));
    }
    message
}

/// Where the route leads, and how.
fn reach(route: &Route, index: u32) -> RouteMessage {
    // The builder over both families can fail on a mixture, which a `Route` cannot be; these cannot.
    let scope = if route.gateway().is_some() { RouteScope::Universe } else { RouteScope::Link };
    if route.is_ipv4() {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).scope(scope);
        if let Some((IpAddr::V4(address), length)) = route.destination() {
            message = message.destination_prefix(address, length);
        }
        if let Some(IpAddr::V4(gateway)) = route.gateway() {
            message = message.gateway(gateway);
        }
        if let Some(IpAddr::V4(source)) = route.source() {
            message = message.pref_source(source);
        }
        return message.build();
    }
    let mut message = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
    if let Some((IpAddr::V6(address), length)) = route.destination() {
        message = message.destination_prefix(address, length);
    }
    if let Some(IpAddr::V6(gateway)) = route.gateway() {
        message = message.gateway(gateway);
    }
    if let Some(IpAddr::V6(source)) = route.source() {
        message = message.pref_source(source);
    }
    message.build()
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut hardware_address = None;
    let mut mtu = 0;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => {
                hardware_address = <[u8; 6]>::try_from(bytes.as_slice())
                    .ok()
                    .and_then(|bytes| HardwareAddress::new(bytes).ok());
            }
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    let arp = !message.header.flags.contains(LinkFlags::Noarp);
    Some(Link { index: message.header.index, name: name?, hardware_address: hardware_address?, mtu, arp })
}

fn message_address(message: &AddressMessage) -> Option<IpAddr> {
    // IPv4 puts the interface's own address in `Local`, IPv6 in `Address`.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn read_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    InterfaceAddress::new(message_address(message)?, message.header.prefix_len.into()).ok()
}

fn read_route(message: &RouteMessage, names: &HashMap<u32, InterfaceName>) -> Option<Route> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let (mut interface, mut destination, mut gateway, mut source) = (None, None, None, None);
    let mut mtu = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = names.get(index).cloned(),
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) => Mtu::new((*bytes).into()).ok(),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let destination = destination.map(|address| (address, message.header.destination_prefix_length.into()));
    let route = Route::new(interface?, destination, gateway, source).ok()?;
    Some(route.with_mtu(mtu).with_on_link(message.header.flags.contains(RouteFlags::Onlink)))
}

fn network(address: IpAddr, length: u8) -> Option<IpAddr> {
    let length = u32::from(length);
    Some(match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - length)?).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - length)?).into()),
    })
}
