//! Network values that arrived from the host, each with the bounds the guest accepts.

use std::{fmt, net::IpAddr, str::FromStr};

/// `IFNAMSIZ` less the terminating zero (linux/if.h).
const MAX_NAME: usize = 15;
/// The least MTU IPv4 allows (RFC 791, 3.2) and the largest a 16-bit length can need.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 576..=65535;

/// A network value the guest does not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkValueError {
    #[error("interface name has {0} bytes; 1 to {MAX_NAME} are allowed")]
    NameLength(usize),
    #[error("interface name is not made of letters, digits, '-', '_' and '.', starting with a letter")]
    NameCharacter,
    #[error("the loopback interface is not the host's to configure")]
    Loopback,
    #[error("hardware address is not six pairs of hexadecimal digits joined by ':'")]
    HardwareAddress,
    #[error("hardware address is a group address or all zero")]
    NotAStation,
    #[error("address is not an IP address")]
    NotAnAddress,
    #[error("{0} is not an address an interface may have (loopback, multicast, broadcast or unspecified)")]
    UnusableAddress(IpAddr),
    #[error("prefix length {length} is not within 1 to {limit}")]
    PrefixLength { length: u32, limit: u8 },
    #[error("MTU {0} is not within {first} to {last}", first = MTU_RANGE.start(), last = MTU_RANGE.end())]
    Mtu(u64),
    #[error("route destination {0} is loopback or multicast")]
    Destination(IpAddr),
    #[error("route destination has bits set beyond its prefix length")]
    HostBits,
    #[error("route mixes IPv4 and IPv6")]
    MixedFamilies,
    #[error("route has neither a destination nor a gateway")]
    EmptyRoute,
}

/// The name of an interface: a letter, then letters, digits, `-`, `_` and `.`; never `lo`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = NetworkValueError;

    fn from_str(text: &str) -> Result<Self, NetworkValueError> {
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(NetworkValueError::NameLength(text.len()));
        }
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if !text.as_bytes()[0].is_ascii_alphabetic() || !text.bytes().all(allowed) {
            return Err(NetworkValueError::NameCharacter);
        }
        // "all" and "default" are directories beside the interfaces' own below /proc/sys/net.
        if text == "lo" || text == "all" || text == "default" {
            return Err(NetworkValueError::Loopback);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A station's Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HardwareAddress([u8; 6]);

impl HardwareAddress {
    pub fn new(bytes: [u8; 6]) -> Result<Self, NetworkValueError> {
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(NetworkValueError::NotAStation);
        }
        Ok(Self(bytes))
    }

    /// The six bytes in the order they are sent.
    pub fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }
}

impl FromStr for HardwareAddress {
    type Err = NetworkValueError;

    fn from_str(text: &str) -> Result<Self, NetworkValueError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(NetworkValueError::HardwareAddress)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(NetworkValueError::HardwareAddress);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NetworkValueError::HardwareAddress)?;
        }
        match parts.next() {
            None => Self::new(bytes),
            Some(_) => Err(NetworkValueError::HardwareAddress),
        }
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The largest frame payload of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtu(u32);

impl Mtu {
    pub fn new(bytes: u64) -> Result<Self, NetworkValueError> {
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| MTU_RANGE.contains(bytes))
            .map(Self)
            .ok_or(NetworkValueError::Mtu(bytes))
    }

    pub fn bytes(self) -> u32 {
        self.0
    }
}

/// An address an interface may have, with the prefix length of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    address: IpAddr,
    prefix_length: u8,
}

impl InterfaceAddress {
    pub fn new(address: IpAddr, prefix_length: u32) -> Result<Self, NetworkValueError> {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if is_reserved(address) || address.is_unspecified() || broadcast {
            return Err(NetworkValueError::UnusableAddress(address));
        }
        let prefix_length = check_prefix(address, prefix_length, 1)?;
        Ok(Self { address, prefix_length })
    }

    pub fn parse(address: &str, prefix_length: u32) -> Result<Self, NetworkValueError> {
        Self::new(parse_address(address)?, prefix_length)
    }

    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn prefix_length(self) -> u8 {
        self.prefix_length
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

/// One interface: which one (hardware address), and what it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceConfig {
    pub hardware_address: HardwareAddress,
    pub name: InterfaceName,
    pub addresses: Vec<InterfaceAddress>,
    /// None keeps what the device came with.
    pub mtu: Option<Mtu>,
    /// Whether it asks for and answers with hardware addresses; some networks set them by hand instead.
    pub arp: bool,
}

/// One route of the main table. A destination of None is the default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    interface: InterfaceName,
    mtu: Option<Mtu>,
    on_link: bool,
}

impl Route {
    /// An unspecified destination of prefix length 0 means the default route, as None does.
    pub fn new(
        interface: InterfaceName,
        destination: Option<(IpAddr, u32)>,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> Result<Self, NetworkValueError> {
        let destination = match destination {
            Some((address, 0)) if address.is_unspecified() => None,
            Some((address, length)) => Some(check_destination(address, length)?),
            None => None,
        };
        for address in [gateway, source].into_iter().flatten() {
            if is_reserved(address) || address.is_unspecified() {
                return Err(NetworkValueError::UnusableAddress(address));
            }
        }
        let families =
            [destination.map(|(address, _)| address), gateway, source].map(|a| a.map(|a| a.is_ipv4()));
        if families.contains(&Some(true)) && families.contains(&Some(false)) {
            return Err(NetworkValueError::MixedFamilies);
        }
        if destination.is_none() && gateway.is_none() {
            return Err(NetworkValueError::EmptyRoute);
        }
        Ok(Self { destination, gateway, source, interface, mtu: None, on_link: false })
    }

    /// Packets on this route are no larger than this.
    pub fn with_mtu(self, mtu: Option<Mtu>) -> Self {
        Self { mtu, ..self }
    }

    /// The gateway is on the link although no address of the interface says so.
    pub fn with_on_link(self, on_link: bool) -> Self {
        Self { on_link, ..self }
    }

    /// Reads the texts of the wire: an empty one is absent, a destination is `ADDRESS/LENGTH` or an address.
    pub fn parse(
        interface: &str,
        destination: &str,
        gateway: &str,
        source: &str,
    ) -> Result<Self, NetworkValueError> {
        let optional = |text: &str| if text.is_empty() { Ok(None) } else { parse_address(text).map(Some) };
        let destination = match destination.split_once('/') {
            _ if destination.is_empty() || destination == "default" => None,
            Some((address, length)) => Some((
                parse_address(address)?,
                length
                    .parse()
                    .map_err(|_| NetworkValueError::PrefixLength { length: u32::MAX, limit: 128 })?,
            )),
            None => {
                let address = parse_address(destination)?;
                Some((address, u32::from(max_prefix(address))))
            }
        };
        Self::new(interface.parse()?, destination, optional(gateway)?, optional(source)?)
    }

    pub fn interface(&self) -> &InterfaceName {
        &self.interface
    }

    pub fn destination(&self) -> Option<(IpAddr, u8)> {
        self.destination
    }

    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    pub fn mtu(&self) -> Option<Mtu> {
        self.mtu
    }

    pub fn is_on_link(&self) -> bool {
        self.on_link
    }

    pub fn is_ipv4(&self) -> bool {
        // `new` refuses a route without a destination and without a gateway, and one of two families.
        self.destination.map(|(address, _)| address).or(self.gateway).is_none_or(|a| a.is_ipv4())
    }
}

/// A permanent neighbour: who has `address` on the link of `interface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    pub interface: InterfaceName,
    pub address: IpAddr,
    pub hardware_address: HardwareAddress,
}

fn parse_address(text: &str) -> Result<IpAddr, NetworkValueError> {
    text.parse().map_err(|_| NetworkValueError::NotAnAddress)
}

/// Addresses that must keep meaning "this guest" or "many", whatever the host says.
fn is_reserved(address: IpAddr) -> bool {
    let canonical = address.to_canonical();
    canonical.is_loopback() || canonical.is_multicast() || (address.is_ipv6() && canonical.is_ipv4())
}

fn max_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn check_prefix(address: IpAddr, length: u32, least: u8) -> Result<u8, NetworkValueError> {
    let limit = max_prefix(address);
    u8::try_from(length)
        .ok()
        .filter(|length| (least..=limit).contains(length))
        .ok_or(NetworkValueError::PrefixLength { length, limit })
}

fn check_destination(address: IpAddr, length: u32) -> Result<(IpAddr, u8), NetworkValueError> {
    if is_reserved(address) {
        return Err(NetworkValueError::Destination(address));
    }
    let length = check_prefix(address, length, 1)?;
    let host_bits = match address {
        IpAddr::V4(v4) => v4.to_bits().checked_shl(u32::from(length)).unwrap_or(0) != 0,
        IpAddr::V6(v6) => v6.to_bits().checked_shl(u32::from(length)).unwrap_or(0) != 0,
    };
    if host_bits {
        return Err(NetworkValueError::HostBits);
    }
    Ok((address, length))
}
