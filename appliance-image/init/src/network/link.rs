//! Links, addresses and routes through netlink (RFC 3549), one request and its answer at a time.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A netlink socket for routes.
pub struct Links {
    socket: Socket,
    sequence: u32,
}

impl Links {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Brings a link up.
    pub fn up(&mut self, name: &str) -> io::Result<()> {
        let mut message = named(name)?;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives a link another name; it must be down.
    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut message = named(from)?;
        message
            .attributes
            .push(LinkAttribute::IfName(to.to_owned()));
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the largest packet of a link.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> io::Result<()> {
        let mut message = named(name)?;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Makes a VLAN (IEEE 802.1Q) on a link; one that is there is kept.
    pub fn add_vlan(&mut self, name: &str, parent: &str, vlan: u16) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(index(parent)?),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(vlan)])),
            ]),
        ];
        let made = self.request(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        there_is_fine(made)
    }

    /// Adds an address with the route to its network; one that is there is kept.
    pub fn add_address(&mut self, name: &str, address: IpNet) -> io::Result<()> {
        let message = address_message(name, address)?;
        let added = self.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        );
        there_is_fine(added)
    }

    /// Takes an address away.
    pub fn remove_address(&mut self, name: &str, address: IpNet) -> io::Result<()> {
        let message = address_message(name, address)?;
        self.request(RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Routes everything else through a router on this link, instead of a former one.
    pub fn add_default_route(&mut self, name: &str, gateway: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Gateway(RouteAddress::from(gateway)),
            RouteAttribute::Oif(index(name)?),
        ];
        self.request(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut packet =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(io::Error::other)?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(verdict) = answer.payload {
                return match verdict.code {
                    None => Ok(()),
                    Some(_) => Err(verdict.to_io()),
                };
            }
        }
    }
}

fn named(name: &str) -> io::Result<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index(name)?;
    Ok(message)
}

fn address_message(name: &str, address: IpNet) -> io::Result<AddressMessage> {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index(name)?;
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    if let IpNet::V4(net) = address {
        let broadcast: Ipv4Addr = net.broadcast();
        message
            .attributes
            .push(AddressAttribute::Broadcast(broadcast));
    }
    Ok(message)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn there_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn index(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .map_err(|_| io::Error::other(format!("there is no interface {name}")))?;
    text.trim().parse().map_err(io::Error::other)
}
