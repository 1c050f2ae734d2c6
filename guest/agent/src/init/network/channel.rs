//! A route netlink socket: one request at a time, and its answer.
//!
//! The message types are those of the crate that the container runtime links already; a second netlink stack
//! would make the measured program larger by a twentieth for a handful of requests.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use tokio::io::{Interest, unix::AsyncFd};

use super::Neighbor;
use crate::sys;

/// The kernel puts at most this much into one datagram of a dump (net/netlink/af_netlink.c).
const DATAGRAM: usize = 32 << 10;
/// Messages of one answer: far above the interfaces, addresses and routes that the guest takes.
const MAX_MESSAGES: usize = 4096;

#[derive(Debug)]
pub(super) struct Channel {
    socket: AsyncFd<OwnedFd>,
    sequence: u32,
}

impl Channel {
    /// Call it within the runtime.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = net::AddressFamily::NETLINK;
        // Protocol 0 of this family is NETLINK_ROUTE.
        let socket = net::socket_with(family, SocketType::RAW, flags, None)?;
        // Connected to the kernel: the socket takes messages of nobody else.
        net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket: sys::watch(socket)?, sequence: 0 })
    }

    /// Everything of one kind.
    pub(super) async fn dump(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.request(question, NLM_F_DUMP).await
    }

    /// Changes or removes something that there is.
    pub(super) async fn change(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK).await.map(drop)
    }

    /// Adds something, or replaces what is in its place.
    pub(super) async fn put(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await.map(drop)
    }

    async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let send = |socket: &OwnedFd| Ok(net::send(socket, &bytes, SendFlags::empty())?);
        self.socket.async_io(Interest::WRITABLE, send).await?;
        self.answer().await
    }

    async fn answer(&self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut datagram = vec![0; DATAGRAM];
        let mut messages = Vec::new();
        loop {
            let receive =
                |socket: &OwnedFd| Ok(net::recv(socket, datagram.as_mut_slice(), RecvFlags::TRUNC)?.1);
            let length = self.socket.async_io(Interest::READABLE, receive).await?;
            let mut rest = datagram.get(..length).ok_or_else(|| invalid("its answer is cut off"))?;
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(invalid)?;
                // The next message starts at a multiple of four (NLMSG_ALIGN).
                let end = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = rest.get(end.max(1)..).unwrap_or_default();
                // What answers a request that was given up is not for this one.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(messages),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(messages),
                    NetlinkPayload::Done(done) => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::InnerMessage(inner) if messages.len() < MAX_MESSAGES => {
                        messages.push(inner);
                    }
                    NetlinkPayload::InnerMessage(_) => return Err(invalid("its answer has no end")),
                    _ => {}
                }
            }
        }
    }
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// A change of the link's flags within `mask`.
pub(super) fn link_flags(index: u32, flags: LinkFlags, mask: LinkFlags) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = mask;
    RouteNetlinkMessage::SetLink(message)
}

pub(super) fn link_attribute(index: u32, attribute: LinkAttribute) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(attribute);
    RouteNetlinkMessage::SetLink(message)
}

pub(super) fn address(index: u32, address: IpAddr, prefix_length: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.index = index;
    message.header.prefix_len = prefix_length;
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.push(AddressAttribute::Local(address));
    if let IpAddr::V4(v4) = address
        && prefix_length < 31
    {
        let broadcast = Ipv4Addr::from_bits(v4.to_bits() | u32::MAX >> prefix_length);
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    RouteNetlinkMessage::NewAddress(message)
}

/// A neighbour that stays.
pub(super) fn neighbour(index: u32, neighbor: &Neighbor) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbor.address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match neighbor.address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let hardware_address = neighbor.hardware_address.as_bytes().to_vec();
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(hardware_address));
    RouteNetlinkMessage::NewNeighbour(message)
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
