//! Applies the pod's network configuration to the kernel over route netlink.
//!
//! One socket, opened at the first use and shared by all calls; every call has a deadline. Calls change one
//! thing after the other under a lock, because "make it so" is several netlink messages.

use std::{collections::HashMap, fs, future::Future, io, net::IpAddr, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType,
    },
};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{
    HardwareAddress, InterfaceAddress, InterfaceConfig, InterfaceName, MAX_ADDRESSES, MAX_ROUTES, Mtu,
    Neighbor, NetworkConfigurator, NetworkError, Route,
    channel::{self, Channel},
};

/// Netlink answers within microseconds; a kernel that does not within this is not going to.
const DEADLINE: Duration = Duration::from_secs(5);

/// The network of this network namespace.
#[derive(Default)]
pub struct Netlink {
    channel: Mutex<Option<Channel>>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Netlink {
    /// The kernel gives it its addresses.
    async fn loopback_up(&self) -> Result<(), NetworkError> {
        let mut connection = self.lock().await?;
        // The loopback device of a network namespace is always its first (net/core/dev.c, LOOPBACK_IFINDEX).
        let up = channel::link_flags(1, LinkFlags::Up, LinkFlags::Up);
        connection.change("bringing the loopback interface up", up).await
    }

    async fn lock(&self) -> Result<Connection<'_>, NetworkError> {
        let mut slot = self.channel.lock().await;
        let channel = match slot.take() {
            Some(channel) => channel,
            None => Channel::open().map_err(NetworkError::Open)?,
        };
        Ok(Connection { channel: MutexGuard::map(slot, |slot| slot.insert(channel)) })
    }

    async fn set_interface(&self, config: InterfaceConfig) -> Result<InterfaceConfig, NetworkError> {
        if config.addresses.len() > MAX_ADDRESSES {
            return Err(NetworkError::TooMany { what: "addresses", limit: MAX_ADDRESSES });
        }
        let mut connection = self.lock().await?;
        let links = connection.links().await?;
        let link = links
            .iter()
            .find(|link| link.hardware_address == config.hardware_address)
            .ok_or(NetworkError::NoSuchHardwareAddress(config.hardware_address))?;
        if links.iter().any(|other| other.index != link.index && other.name == config.name.as_str()) {
            return Err(NetworkError::NameTaken(config.name));
        }
        connection.name_and_mtu(link, &config).await?;
        protocol_six(&config.name, config.addresses.iter().any(|address| address.address().is_ipv6()));
        connection.set_addresses(link.index, &config.addresses).await?;
        let up = channel::link_flags(link.index, LinkFlags::Up, LinkFlags::Up);
        connection.change("bringing an interface up", up).await?;
        let mtu = config.mtu.or_else(|| Mtu::new(link.mtu.into()).ok());
        Ok(InterfaceConfig { mtu, ..config })
    }

    async fn list_interfaces(&self) -> Result<Vec<InterfaceConfig>, NetworkError> {
        let mut connection = self.lock().await?;
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
        let mut connection = self.lock().await?;
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
            connection.change("removing a route", RouteNetlinkMessage::DelRoute(old)).await?;
        }
        // Those without a gateway first: they are how a gateway is reached.
        messages.sort_by_key(|(through_gateway, _)| *through_gateway);
        for (_, message) in messages {
            connection.put("adding a route", RouteNetlinkMessage::NewRoute(message)).await?;
        }
        Ok(routes)
    }

    async fn set_neighbors(&self, neighbors: Vec<Neighbor>) -> Result<(), NetworkError> {
        let mut connection = self.lock().await?;
        let links = connection.links().await?;
        for neighbor in neighbors {
            let link = links
                .iter()
                .find(|link| link.name == neighbor.interface.as_str())
                .ok_or_else(|| NetworkError::NoSuchInterface(neighbor.interface.clone()))?;
            connection.put("adding a neighbour", channel::neighbour(link.index, &neighbor)).await?;
        }
        Ok(())
    }

    async fn list_routes(&self) -> Result<Vec<Route>, NetworkError> {
        let mut connection = self.lock().await?;
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
    fn start(&self) -> BoxFuture<'_, Result<(), NetworkError>> {
        self.loopback_up().boxed()
    }

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

/// Speaks IPv6 on an interface only if it was given such an address: an address that the kernel makes up, and asks the whole
/// link about, is of no use to a pod and one more thing for the link to talk to.
fn protocol_six(name: &InterfaceName, wanted: bool) {
    // Names have no '/' in them, and are not "." or "..".
    let switch = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", name.as_str());
    // A kernel without IPv6 has no switch, and one that refuses says so when the address is set.
    let _ = fs::write(switch, if wanted { "0" } else { "1" });
}

/// The connection for as long as one change takes: nobody else changes anything meanwhile.
struct Connection<'a> {
    channel: MappedMutexGuard<'a, Channel>,
}

/// What the guest reads of a link; the loopback interface and whatever is not Ethernet have no station address.
struct Link {
    index: u32,
    name: String,
    hardware_address: HardwareAddress,
    mtu: u32,
    arp: bool,
}

impl Connection<'_> {
    async fn dump(
        &mut self,
        what: &'static str,
        question: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetworkError> {
        within_deadline(what, self.channel.dump(question)).await
    }

    async fn change(&mut self, what: &'static str, message: RouteNetlinkMessage) -> Result<(), NetworkError> {
        within_deadline(what, self.channel.change(message)).await
    }

    async fn put(&mut self, what: &'static str, message: RouteNetlinkMessage) -> Result<(), NetworkError> {
        within_deadline(what, self.channel.put(message)).await
    }

    async fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        let all = self.dump("listing interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default()));
        Ok(all.await?.iter().filter_map(read_link).collect())
    }

    /// A link is renamed only while it is down.
    async fn name_and_mtu(&mut self, link: &Link, config: &InterfaceConfig) -> Result<(), NetworkError> {
        const WHAT: &str = "naming an interface";
        if link.name != config.name.as_str() {
            let down = channel::link_flags(link.index, LinkFlags::empty(), LinkFlags::Up);
            self.change(WHAT, down).await?;
            let name = LinkAttribute::IfName(config.name.as_str().to_owned());
            self.change(WHAT, channel::link_attribute(link.index, name)).await?;
        }
        if let Some(mtu) = config.mtu.filter(|mtu| mtu.bytes() != link.mtu) {
            let mtu = LinkAttribute::Mtu(mtu.bytes());
            self.change(WHAT, channel::link_attribute(link.index, mtu)).await?;
        }
        if config.arp != link.arp {
            let flags = if config.arp { LinkFlags::empty() } else { LinkFlags::Noarp };
            self.change(WHAT, channel::link_flags(link.index, flags, LinkFlags::Noarp)).await?;
        }
        Ok(())
    }

    async fn addresses(&mut self, index: u32) -> Result<Vec<AddressMessage>, NetworkError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        // Link-local addresses that the kernel gave itself are not the host's to take away.
        let given = |message: &AddressMessage| {
            message.header.scope != AddressScope::Link
                || message.header.flags.contains(AddressHeaderFlags::Permanent)
                    && !matches!(message_address(message), Some(IpAddr::V6(_)))
        };
        let mut found = Vec::new();
        for message in self.dump("listing addresses", question).await? {
            match message {
                RouteNetlinkMessage::NewAddress(message)
                    if message.header.index == index && given(&message) =>
                {
                    found.push(message);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    async fn set_addresses(&mut self, index: u32, wanted: &[InterfaceAddress]) -> Result<(), NetworkError> {
        let mut present = Vec::new();
        for message in self.addresses(index).await? {
            match read_address(&message) {
                Some(address) if wanted.contains(&address) => present.push(address),
                _ => {
                    self.change("removing an address", RouteNetlinkMessage::DelAddress(message)).await?;
                }
            }
        }
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            let add = channel::address(index, address.address(), address.prefix_length());
            self.put("adding an address", add).await?;
        }
        Ok(())
    }

    /// Routes of the main table that were configured: those the kernel made for itself are left out.
    async fn static_routes(&mut self) -> Result<Vec<RouteMessage>, NetworkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let question = RouteNetlinkMessage::GetRoute(main_table(family));
            for message in self.dump("listing routes", question).await? {
                match message {
                    RouteNetlinkMessage::NewRoute(route)
                        if route.header.table == RouteHeader::RT_TABLE_MAIN
                            && route.header.kind == RouteType::Unicast
                            && !matches!(
                                route.header.protocol,
                                RouteProtocol::Kernel | RouteProtocol::Ra
                            ) =>
                    {
                        found.push(route);
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    async fn is_own_network(&mut self, index: u32, route: &Route) -> Result<bool, NetworkError> {
        let Some((destination, length)) = route.destination() else { return Ok(false) };
        let addresses = self.addresses(index).await?;
        Ok(addresses.iter().filter_map(read_address).any(|address| {
            address.prefix_length() == length && network(address.address(), length) == Some(destination)
        }))
    }
}

async fn within_deadline<T>(
    what: &'static str,
    answer: impl Future<Output = io::Result<T>>,
) -> Result<T, NetworkError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(answer) => answer.map_err(|source| NetworkError::Netlink { what, source }),
        Err(_) => Err(NetworkError::Deadline { what, seconds: DEADLINE.as_secs() }),
    }
}

fn main_table(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
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
    let family = if route.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut message = main_table(family);
    // IPv6 has no scopes of routes.
    if route.is_ipv4() && route.gateway().is_none() {
        message.header.scope = RouteScope::Link;
    }
    message.attributes.push(RouteAttribute::Oif(index));
    if let Some((address, length)) = route.destination() {
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(address.into()));
    }
    if let Some(gateway) = route.gateway() {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = route.source() {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    message
}

fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
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
