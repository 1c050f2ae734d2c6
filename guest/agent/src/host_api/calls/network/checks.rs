//! The named checks that open what the host says about the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_api::host;

use crate::{
    host_api::status::Status,
    init::network::{
        HardwareAddress, InterfaceAddress, InterfaceConfig, InterfaceName, Mtu, Neighbor, Route,
    },
};

/// Interfaces that a host may bring; a pod has one or two.
pub(super) const MAX_INTERFACES: usize = 8;
const MAX_ADDRESSES: usize = 16;
const MAX_ROUTES: usize = 64;
const MAX_NEIGHBORS: usize = 64;

/// `IFF_NOARP` (linux/if.h), the one flag that network plugins set.
const NO_ARP: u32 = 0x80;
/// `RTNH_F_ONLINK` (linux/rtnetlink.h).
const ON_LINK: u32 = 4;
/// `RT_SCOPE_UNIVERSE` and `RT_SCOPE_LINK` (linux/rtnetlink.h); host scope would be the guest's own addresses.
const ALLOWED_SCOPES: [u32; 2] = [0, 253];
/// `NUD_PERMANENT` (linux/neighbour.h), the one state a host may set; 0 leaves it open.
const ALLOWED_STATES: [i32; 2] = [0, 0x80];

/// Where clouds serve a machine's identity; a host that answers there plays the cloud.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

pub(super) fn interface(wire: &host::Interface) -> Result<InterfaceConfig, Status> {
    if wire.raw_flags & !NO_ARP != 0 {
        return Err(Status::invalid("interface.raw_flags has a flag that is not accepted"));
    }
    if wire.ip_addresses.len() > MAX_ADDRESSES {
        return Err(Status::invalid("interface has too many addresses"));
    }
    Ok(InterfaceConfig {
        hardware_address: hardware_address(&wire.hw_addr)?,
        name: interface_name(&wire.name)?,
        addresses: wire.ip_addresses.iter().map(interface_address).collect::<Result<_, _>>()?,
        mtu: mtu(wire.mtu)?,
        arp: wire.raw_flags & NO_ARP == 0,
    })
}

pub(super) fn routes(wire: &[host::Route]) -> Result<Vec<Route>, Status> {
    match wire.len() <= MAX_ROUTES {
        true => wire.iter().map(route).collect(),
        false => Err(Status::invalid("too many routes")),
    }
}

pub(super) fn neighbors(wire: &[host::ArpNeighbor]) -> Result<Vec<Neighbor>, Status> {
    match wire.len() <= MAX_NEIGHBORS {
        true => wire.iter().map(neighbor).collect(),
        false => Err(Status::invalid("too many neighbors")),
    }
}

fn route(wire: &host::Route) -> Result<Route, Status> {
    const INVALID: Status = Status::invalid("route is not one that the guest accepts");
    if !ALLOWED_SCOPES.contains(&wire.scope) {
        return Err(Status::invalid("route.scope is not accepted"));
    }
    if wire.flags & !ON_LINK != 0 {
        return Err(Status::invalid("route.flags has a flag that is not accepted"));
    }
    interface_name(&wire.device)?;
    let route = Route::parse(&wire.device, &wire.dest, &wire.gateway, &wire.source)
        .map_err(|_| INVALID)?
        .with_mtu(mtu(wire.mtu.into())?)
        .with_on_link(wire.flags & ON_LINK != 0);
    let hidden = |address: Option<IpAddr>| address.is_some_and(|address| METADATA.contains(&address));
    let destination = route.destination();
    if hidden(destination.map(|(address, _)| address))
        || hidden(route.gateway())
        || hidden(route.source())
        || destination.is_some_and(|(address, prefix)| covers_loopback(address, prefix))
    {
        return Err(INVALID);
    }
    Ok(route)
}

fn neighbor(wire: &host::ArpNeighbor) -> Result<Neighbor, Status> {
    const INVALID: Status = Status::invalid("neighbor is not one that the guest accepts");
    if !ALLOWED_STATES.contains(&wire.state) || wire.flags != 0 {
        return Err(INVALID);
    }
    let address = wire.to_ip_address.as_ref().ok_or(INVALID)?;
    // A neighbour's address obeys the rules of an interface's; the length of a prefix says nothing here.
    let address: IpAddr = address.address.parse().map_err(|_| INVALID)?;
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    InterfaceAddress::new(address, prefix).map_err(|_| INVALID)?;
    if METADATA.contains(&address) {
        return Err(INVALID);
    }
    Ok(Neighbor {
        address,
        interface: interface_name(&wire.device)?,
        hardware_address: hardware_address(&wire.lladdr)?,
    })
}

fn interface_address(wire: &host::IpAddress) -> Result<InterfaceAddress, Status> {
    const INVALID: Status = Status::invalid("interface has an address that the guest does not accept");
    let prefix = wire.mask.parse().map_err(|_| INVALID)?;
    let address = InterfaceAddress::parse(&wire.address, prefix).map_err(|_| INVALID)?;
    let ip = address.address();
    if METADATA.contains(&ip) || covers_loopback(ip, address.prefix_length()) {
        return Err(INVALID);
    }
    Ok(address)
}

/// A letter and what follows, but nothing that looks like loopback and nothing the owner's tunnels are called.
fn interface_name(name: &str) -> Result<InterfaceName, Status> {
    const INVALID: Status = Status::invalid("interface name is not accepted");
    match name.starts_with("lo") {
        true => Err(INVALID),
        false => name.parse().map_err(|_| INVALID),
    }
}

fn hardware_address(text: &str) -> Result<HardwareAddress, Status> {
    text.parse().map_err(|_| Status::invalid("hardware address is not that of a station"))
}

fn mtu(bytes: u64) -> Result<Option<Mtu>, Status> {
    match bytes {
        0 => Ok(None),
        bytes => Mtu::new(bytes).map(Some).map_err(|_| Status::invalid("mtu is not within 576 to 65535")),
    }
}

/// Whether a network with this prefix holds a loopback address.
fn covers_loopback(address: IpAddr, prefix: u8) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shift = 32 - u32::from(prefix.min(8));
            let loopback = Ipv4Addr::LOCALHOST.to_bits();
            address.to_bits().checked_shr(shift).unwrap_or(0) == loopback.checked_shr(shift).unwrap_or(0)
        }
        IpAddr::V6(address) => {
            let shift = 128 - u32::from(prefix.min(128));
            let loopback = Ipv6Addr::LOCALHOST.to_bits();
            address.to_bits().checked_shr(shift).unwrap_or(0) == loopback.checked_shr(shift).unwrap_or(0)
        }
    }
}
