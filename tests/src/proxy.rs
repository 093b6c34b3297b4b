//! PROXY protocol headers as a backend reads them (the HAProxy specification, versions 1 and 2).

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u8,
    /// The client.
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
    /// Type and value of each TLV, those inside PP2_TYPE_SSL included.
    pub tlvs: Vec<(u8, Vec<u8>)>,
}

/// PP2_TYPE_ALPN.
pub const ALPN: u8 = 0x01;
/// PP2_TYPE_AUTHORITY.
pub const AUTHORITY: u8 = 0x02;
/// PP2_TYPE_UNIQUE_ID.
pub const UNIQUE_ID: u8 = 0x05;
/// PP2_TYPE_SSL.
pub const SSL: u8 = 0x20;
/// PP2_SUBTYPE_SSL_VERSION.
pub const SSL_VERSION: u8 = 0x21;
/// PP2_SUBTYPE_SSL_CIPHER.
pub const SSL_CIPHER: u8 = 0x23;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl Header {
    /// Reads a header of either version from the start of a stream, and not a byte more.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut start = [0; 12];
        from.read_exact(&mut start)?;
        if &start == SIGNATURE {
            Self::read_v2(from)
        } else {
            Self::read_v1(&start, from)
        }
    }

    /// The value of a TLV.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, value)| &value[..])
    }

    fn read_v1(start: &[u8], from: &mut impl Read) -> io::Result<Self> {
        let mut line = start.to_vec();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let invalid = || io::Error::other(format!("not a PROXY header: {line:?}"));
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let &["PROXY", "TCP4" | "TCP6", from, to, from_port, to_port] = &words[..] else {
            return Err(invalid());
        };
        let address = |ip: &str, port: &str| {
            let ip: IpAddr = ip.parse().map_err(|_| invalid())?;
            io::Result::Ok(SocketAddr::new(ip, port.parse().map_err(|_| invalid())?))
        };
        Ok(Self {
            version: 1,
            source: Some(address(from, from_port)?),
            destination: Some(address(to, to_port)?),
            tlvs: Vec::new(),
        })
    }

    fn read_v2(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 4];
        from.read_exact(&mut head)?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        from.read_exact(&mut rest)?;
        assert_eq!(head[0] >> 4, 2, "version");
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let (source, destination, addresses) = match head[1] {
            0x11 => {
                let ip =
                    |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&rest[at..at + 4]).expect("4"));
                let (a, b) = ((ip(0), port(8)), (ip(4), port(10)));
                (Some(a.into()), Some(b.into()), 12)
            }
            0x21 => {
                let ip = |at: usize| {
                    Ipv6Addr::from(<[u8; 16]>::try_from(&rest[at..at + 16]).expect("16"))
                };
                let (a, b) = ((ip(0), port(32)), (ip(16), port(34)));
                (Some(a.into()), Some(b.into()), 36)
            }
            _ => (None, None, 0),
        };
        let mut tlvs = Vec::new();
        read_tlvs(&rest[addresses..], &mut tlvs)?;
        Ok(Self {
            version: 2,
            source,
            destination,
            tlvs,
        })
    }
}

fn read_tlvs(mut bytes: &[u8], into: &mut Vec<(u8, Vec<u8>)>) -> io::Result<()> {
    while let [kind, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let short = || io::Error::other("a TLV is longer than the header");
        let value = rest.get(..length).ok_or_else(short)?;
        into.push((*kind, value.to_vec()));
        if *kind == SSL {
            // client flags (1), verify (4), then TLVs.
            read_tlvs(value.get(5..).ok_or_else(short)?, into)?;
        }
        bytes = &rest[length..];
    }
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other("bytes are left after the TLVs"))
    }
}
