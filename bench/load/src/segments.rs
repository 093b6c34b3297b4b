//! TCP over IPv4 by hand, for what no kernel's TCP would send: segments in any order, SYNs by the
//! thousand from addresses of a test network. Needs root.
//!
//! It acknowledges nothing and repeats nothing. The caller keeps the kernel of the sending side from
//! resetting what it does not know (`iptables -I OUTPUT -p tcp --tcp-flags RST RST -j DROP`).

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Flags of the TCP header (RFC 9293 section 3.1).
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const RST: u8 = 0x04;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

/// Sends segments with any source address.
pub struct Sender(Socket);

/// A segment to send.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// From here.
    pub source: SocketAddrV4,
    /// To there.
    pub target: SocketAddrV4,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledged: u32,
    /// The flags.
    pub flags: u8,
    /// Timestamp and the one echoed; `None`: no such option.
    pub timestamps: Option<(u32, u32)>,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Sender {
    /// Opens a raw socket.
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW: what is sent begins with the IP header.
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).map(Self)
    }

    /// Sends one segment.
    pub fn send(&self, segment: &Segment<'_>) -> io::Result<()> {
        let target = SocketAddrV4::new(*segment.target.ip(), 0);
        self.0.send_to(&segment.packet(), &target.into()).map(drop)
    }
}

impl Segment<'_> {
    /// The IP packet; the kernel fills in its length and checksum.
    fn packet(&self) -> Vec<u8> {
        let options = self.options();
        let mut tcp = Vec::new();
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.target.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        let words = u8::try_from((20 + options.len()) / 4).expect("at most 15");
        tcp.extend([words << 4, self.flags]);
        // Window, then checksum and urgent pointer.
        tcp.extend([0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(self.payload);
        let checksum = checksum(*self.source.ip(), *self.target.ip(), &tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        // Version and header length; TTL 64, TCP; the rest is for the kernel.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend(self.source.ip().octets());
        packet.extend(self.target.ip().octets());
        packet.extend(tcp);
        packet
    }

    fn options(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if self.flags & SYN != 0 {
            // Maximum segment size 1460.
            options.extend([2, 4, 0x05, 0xb4]);
        }
        if let Some((ours, theirs)) = self.timestamps {
            options.extend([1, 1, 8, 10]);
            options.extend(ours.to_be_bytes());
            options.extend(theirs.to_be_bytes());
        }
        options
    }
}

/// The checksum of a TCP segment with its pseudo-header (RFC 9293 section 3.1).
fn checksum(source: Ipv4Addr, target: Ipv4Addr, tcp: &[u8]) -> u16 {
    let length = u16::try_from(tcp.len()).expect("one packet");
    let mut bytes = [source.octets(), target.octets()].concat();
    bytes.extend([0, 6]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(tcp);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let words = bytes.as_chunks().0.iter();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// One conversation by hand.
pub struct Conversation {
    sender: Sender,
    receiver: Socket,
    source: SocketAddrV4,
    target: SocketAddrV4,
    acknowledged: u32,
    echo: u32,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The flags.
    pub flags: u8,
    /// Its sequence number.
    pub sequence: u32,
    /// The server's timestamp, 0 without.
    pub timestamp: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Conversation {
    /// Sends SYN with timestamps, waits for the answer and acknowledges it.
    pub fn open(source: SocketAddrV4, target: SocketAddrV4) -> io::Result<Self> {
        let receiver = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        receiver.bind(&SocketAddrV4::new(*source.ip(), 0).into())?;
        let mut conversation = Self {
            sender: Sender::open()?,
            receiver,
            source,
            target,
            acknowledged: 0,
            echo: 0,
        };
        conversation.emit(SYN, FIRST, &[])?;
        let answer = conversation.receive(PATIENCE)?;
        let answer = answer.ok_or(io::ErrorKind::TimedOut)?;
        if answer.flags & (SYN | ACK | RST) != SYN | ACK {
            return Err(io::Error::other(format!("no SYN-ACK: {answer:?}")));
        }
        conversation.acknowledged = answer.sequence.wrapping_add(1);
        conversation.echo = answer.timestamp;
        conversation.emit(ACK, FIRST + 1, &[])?;
        Ok(conversation)
    }

    /// Sends the bytes that stand at `offset` in the stream.
    pub fn send(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let offset = u32::try_from(offset).expect("a short stream");
        self.emit(ACK, FIRST + 1 + offset, bytes)
    }

    /// The next segment from the server; `None`: there was none in time.
    pub fn receive(&mut self, limit: Duration) -> io::Result<Option<Received>> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.receiver.set_read_timeout(Some(left))?;
            match self.receiver.read(&mut buffer) {
                Ok(n) => {
                    if let Some(received) = self.ours(&buffer[..n]) {
                        return Ok(Some(received));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn emit(&self, flags: u8, sequence: u32, payload: &[u8]) -> io::Result<()> {
        self.sender.send(&Segment {
            source: self.source,
            target: self.target,
            sequence,
            acknowledged: self.acknowledged,
            flags,
            timestamps: Some((1, self.echo)),
            payload,
        })
    }

    fn ours(&self, packet: &[u8]) -> Option<Received> {
        let tcp = packet.get(usize::from(packet.first()? & 15) * 4..)?;
        let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        if port(0)? != self.target.port() || port(2)? != self.source.port() {
            return None;
        }
        let header = usize::from(*tcp.get(12)? >> 4) * 4;
        let options = tcp.get(20..header)?;
        let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
        let stamp = options.windows(6).find(|window| window[..2] == [8, 10]);
        Some(Received {
            flags: *tcp.get(13)?,
            sequence: number(tcp.get(4..8)?)?,
            timestamp: stamp.and_then(|stamp| number(&stamp[2..])).unwrap_or(0),
            payload: tcp.get(header..)?.to_vec(),
        })
    }
}

/// How long a SYN-ACK may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Initial sequence number of each conversation.
const FIRST: u32 = 1_000_000;
