//! A DHCP client (RFC 2131) for one interface: an address, a router, resolvers, time servers.
//!
//! It asks until it is answered, renews at the time the server gave, and takes the address away when
//! the lease ends. What it does not do: probe for the address by ARP, or speak DHCPv6 (IPv6 comes by
//! router advertisement or is fixed).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use ipnet::{IpNet, Ipv4Net};
use socket2::{Domain, Protocol, Socket, Type};

use super::Network;
use super::link::Links;
use crate::say;

/// What a server granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address and its network.
    pub address: Ipv4Net,
    /// Default router.
    pub router: Option<Ipv4Addr>,
    /// DNS servers.
    pub resolvers: Vec<IpAddr>,
    /// Time servers.
    pub time_servers: Vec<IpAddr>,
    server: Ipv4Addr,
    renew_after: Duration,
    ends_after: Duration,
}

/// Starts a client in the background. The channel speaks once, when there is a first lease.
pub fn start(interface: String, network: Network) -> mpsc::Receiver<()> {
    let (tell, first) = mpsc::channel();
    std::thread::spawn(move || {
        let mut tell = Some(tell);
        let mut pause = FIRST_PAUSE;
        loop {
            match hold_a_lease(&interface, &network, &mut tell) {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    if pause > FIRST_PAUSE {
                        say!("interface {interface}: DHCP: {error}");
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    });
    first
}

/// Asks for a lease and keeps it as long as servers allow. Returns when it has run out.
fn hold_a_lease(
    interface: &str,
    network: &Network,
    tell: &mut Option<mpsc::Sender<()>>,
) -> io::Result<()> {
    let mut client = Client::on(interface)?;
    let offer = client.exchange(MessageType::Discover, None)?;
    let mut lease = client.exchange(MessageType::Request, Some(&offer))?;
    let mut links = Links::open()?;
    loop {
        links.add_address(interface, IpNet::V4(lease.address))?;
        if let Some(router) = lease.router {
            links.add_default_route(interface, IpAddr::V4(router))?;
        }
        network.set_addresses(interface, vec![format!("{} (DHCP)", lease.address)]);
        network.leased(&lease);
        if let Some(tell) = tell.take() {
            // Nobody listens any more where the wait has ended.
            let _ = tell.send(());
        }
        let granted = Instant::now();
        std::thread::sleep(lease.renew_after);
        lease = loop {
            match client.exchange(MessageType::Request, Some(&lease)) {
                Ok(renewed) => break renewed,
                Err(_) if granted.elapsed() < lease.ends_after => std::thread::sleep(LONGEST_PAUSE),
                Err(error) => {
                    say!(
                        "interface {interface}: the lease of {} has ended: {error}",
                        lease.address
                    );
                    let _ = links.remove_address(interface, IpNet::V4(lease.address));
                    network.set_addresses(interface, Vec::new());
                    return Ok(());
                }
            }
        };
    }
}

struct Client {
    socket: Socket,
    mac: Vec<u8>,
    transaction: u32,
}

impl Client {
    fn on(interface: &str) -> io::Result<Self> {
        let mac = std::fs::read_to_string(format!("/sys/class/net/{interface}/address"))?;
        let mac = mac
            .trim()
            .split(':')
            .map(|part| u8::from_str_radix(part, 16));
        let mac: Vec<u8> = mac.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self {
            socket,
            mac,
            transaction: 0,
        })
    }

    /// One question and the lease of its answer. All go out as broadcasts: the answer then needs no
    /// address on our side (RFC 2131 section 4.1).
    fn exchange(&mut self, kind: MessageType, about: Option<&Lease>) -> io::Result<Lease> {
        let mut seed = [0; 4];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        self.transaction = u32::from_ne_bytes(seed);
        let question = self.question(kind, about);
        let mut bytes = Vec::new();
        question
            .encode(&mut Encoder::new(&mut bytes))
            .map_err(io::Error::other)?;
        let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
        let deadline = Instant::now() + ANSWER_WITHIN;
        self.socket.send_to(&bytes, &everyone.into())?;
        let mut buffer = [0; 1500];
        while Instant::now() < deadline {
            let length = io::Read::read(&mut &self.socket, &mut buffer)?;
            let Ok(answer) = Message::decode(&mut Decoder::new(&buffer[..length])) else {
                continue;
            };
            if answer.xid() != self.transaction {
                continue;
            }
            let wanted = match kind {
                MessageType::Discover => MessageType::Offer,
                _ => MessageType::Ack,
            };
            match answer.opts().msg_type() {
                Some(kind) if kind == wanted => {
                    return lease(&answer)
                        .ok_or_else(|| io::Error::other("an answer without a netmask or server"));
                }
                Some(MessageType::Nak) => {
                    return Err(io::Error::other("the server refuses the address"));
                }
                _ => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn question(&self, kind: MessageType, about: Option<&Lease>) -> Message {
        let mut message = Message::default();
        message
            .set_xid(self.transaction)
            .set_flags(Flags::default().set_broadcast())
            .set_chaddr(&self.mac);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::NtpServers,
        ]));
        if let Some(lease) = about {
            options.insert(DhcpOption::RequestedIpAddress(lease.address.addr()));
            options.insert(DhcpOption::ServerIdentifier(lease.server));
        }
        message
    }
}

/// The lease that an offer or acknowledgement speaks of; `None` where it lacks what a lease must
/// have.
fn lease(answer: &Message) -> Option<Lease> {
    let options = answer.opts();
    let mask = match options.get(OptionCode::SubnetMask)? {
        DhcpOption::SubnetMask(mask) => *mask,
        _ => return None,
    };
    let server = match options.get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(server) => *server,
        _ => return None,
    };
    let seconds = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => *seconds,
        _ => DEFAULT_LEASE,
    };
    let router = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    let resolvers = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(list)) => list.clone(),
        _ => Vec::new(),
    };
    let time_servers = match options.get(OptionCode::NtpServers) {
        Some(DhcpOption::NtpServers(list)) => list.clone(),
        _ => Vec::new(),
    };
    let ends_after = Duration::from_secs(u64::from(seconds).max(SHORTEST_LEASE));
    Some(Lease {
        address: Ipv4Net::with_netmask(answer.yiaddr(), mask).ok()?,
        router,
        resolvers: resolvers.into_iter().map(IpAddr::V4).collect(),
        time_servers: time_servers.into_iter().map(IpAddr::V4).collect(),
        server,
        // T1 (RFC 2131 section 4.4.5).
        renew_after: ends_after / 2,
        ends_after,
    })
}

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const DEFAULT_LEASE: u32 = 3600;
/// A lease of seconds would have us ask without end.
const SHORTEST_LEASE: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(options: Vec<DhcpOption>) -> Message {
        let mut message = Message::default();
        message.set_yiaddr(Ipv4Addr::new(10, 0, 2, 15));
        for option in options {
            message.opts_mut().insert(option);
        }
        message
    }

    #[test]
    fn a_lease_is_read_from_an_answer() {
        let lease = lease(&answer(vec![
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 2, 2)),
            DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 2, 2)]),
            DhcpOption::AddressLeaseTime(86400),
        ]))
        .unwrap();
        assert_eq!(lease.address.to_string(), "10.0.2.15/24");
        assert_eq!(lease.renew_after, Duration::from_secs(43200));
    }

    #[test]
    fn an_answer_without_a_netmask_or_with_a_broken_one_is_no_lease() {
        let server = || DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(lease(&answer(vec![server()])), None);
        let broken = DhcpOption::SubnetMask(Ipv4Addr::new(255, 0, 255, 0));
        assert_eq!(lease(&answer(vec![server(), broken])), None);
    }
}
