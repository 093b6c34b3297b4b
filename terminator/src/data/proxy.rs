//! PROXY protocol headers (the protocol's document in HAProxy, versions 1 and 2): read from trusted
//! sources, written to backends. Pure; the octets are `ppp`'s business.

use std::net::SocketAddr;

use ppp::v2::{Builder, Command, Protocol, Type, Version};
use ppp::{HeaderResult, PartialResult, v1, v2};

use crate::config::ProxyVersion;

/// What a header's bytes are so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The beginning of a header: receive more.
    Incomplete,
    /// No header, or a broken one.
    Bad,
    /// A header of `len` bytes; the client's address where the header tells one.
    Header {
        /// Length of the header.
        len: usize,
        /// Source and destination as the proxy before us saw them.
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

/// What a backend is told about the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// The client.
    pub(super) client: SocketAddr,
    /// The address the client connected to.
    pub(super) local: SocketAddr,
    /// Server name, lower case.
    pub(super) name: Option<&'a str>,
    /// ALPN protocol negotiated.
    pub(super) alpn: Option<&'a [u8]>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(super) version: &'static str,
    /// Cipher suite, IANA name.
    pub(super) cipher: &'a str,
    /// Names the connection uniquely in the logs of both sides.
    pub(super) id: &'a [u8],
}

/// Whether bytes that should be TLS begin a PROXY header instead.
pub(super) fn looks_like_header(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PROXY ") || bytes.starts_with(v2::PROTOCOL_PREFIX)
}

/// Reads a header from the first bytes of a connection.
pub(super) fn read(bytes: &[u8]) -> Reading {
    if b"PROXY ".starts_with(bytes) || v2::PROTOCOL_PREFIX.starts_with(bytes) {
        return Reading::Incomplete;
    }
    if !looks_like_header(bytes) {
        return Reading::Bad;
    }
    // A line is judged when it is whole; the crate would refuse some beginnings of a good one.
    let line = bytes.get(..bytes.len().min(V1_LONGEST)).unwrap_or(bytes);
    let line_end = line.windows(2).position(|pair| pair == b"\r\n");
    if bytes.starts_with(b"PROXY ") && line_end.is_none() {
        return if bytes.len() < V1_LONGEST {
            Reading::Incomplete
        } else {
            Reading::Bad
        };
    }
    match HeaderResult::parse(bytes) {
        // The crate ends a line at a carriage return, whatever follows it; only CRLF does.
        HeaderResult::V1(Ok(header)) if Some(header.header.len()) != line_end.map(|at| at + 2) => {
            Reading::Bad
        }
        HeaderResult::V1(Ok(header)) => Reading::Header {
            len: header.header.len(),
            addresses: match header.addresses {
                v1::Addresses::Tcp4(a) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                )),
                v1::Addresses::Tcp6(a) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                )),
                v1::Addresses::Unknown => None,
            },
        },
        HeaderResult::V2(Ok(header)) => Reading::Header {
            len: header.len(),
            addresses: match (header.command, header.addresses) {
                (Command::Proxy, v2::Addresses::IPv4(a)) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                )),
                (Command::Proxy, v2::Addresses::IPv6(a)) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                )),
                _ => None,
            },
        },
        HeaderResult::V2(result) if result.is_incomplete() => Reading::Incomplete,
        HeaderResult::V1(_) | HeaderResult::V2(_) => Reading::Bad,
    }
}

/// Writes the header for a backend.
pub(super) fn header(version: ProxyVersion, facts: &Facts<'_>) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => v1_header(facts.client, facts.local).into_bytes(),
        // Every part is short, so only an absurd ALPN or name could not be written; the addresses
        // alone always can.
        ProxyVersion::V2 => {
            v2_header(facts).unwrap_or_else(|_| v1_header(facts.client, facts.local).into_bytes())
        }
    }
}

fn v1_header(client: SocketAddr, local: SocketAddr) -> String {
    let (client, local) = same_family(client, local);
    v1::Addresses::from((client, local)).to_string()
}

fn v2_header(facts: &Facts<'_>) -> std::io::Result<Vec<u8>> {
    let addresses = v2::Addresses::from(same_family(facts.client, facts.local));
    let mut ssl = vec![CLIENT_SSL];
    // The client presented no certificate, so the result of verifying one is non-zero.
    ssl.extend_from_slice(&1u32.to_be_bytes());
    tlv(&mut ssl, Type::SSLVersion, facts.version.as_bytes());
    tlv(&mut ssl, Type::SSLCipher, facts.cipher.as_bytes());
    let mut builder =
        Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses)
            .write_tlv(Type::SSL, &ssl)?
            .write_tlv(Type::UniqueId, facts.id)?;
    if let Some(alpn) = facts.alpn {
        builder = builder.write_tlv(Type::ALPN, alpn)?;
    }
    if let Some(name) = facts.name {
        builder = builder.write_tlv(Type::Authority, name.as_bytes())?;
    }
    builder.build()
}

fn tlv(into: &mut Vec<u8>, kind: Type, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    into.push(kind.into());
    into.extend_from_slice(&len.to_be_bytes());
    into.extend_from_slice(&value[..usize::from(len)]);
}

/// A header has one family: where a proxy before us told addresses of two, IPv4 is mapped.
fn same_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    if a.is_ipv4() == b.is_ipv4() {
        return (a, b);
    }
    let mapped = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        v6 @ SocketAddr::V6(_) => v6,
    };
    (mapped(a), mapped(b))
}

/// PP2_CLIENT_SSL: the client connected over TLS.
const CLIENT_SSL: u8 = 0x01;

/// Longest version 1 header.
const V1_LONGEST: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts() -> Facts<'static> {
        Facts {
            client: "192.0.2.7:50000".parse().expect("address"),
            local: "198.51.100.1:443".parse().expect("address"),
            name: Some("example.com"),
            alpn: Some(b"h2"),
            version: "TLSv1.3",
            cipher: "TLS13_AES_128_GCM_SHA256",
            id: b"0-1",
        }
    }

    #[test]
    fn only_both_line_end_characters_end_a_line() {
        for line in [
            &b"PROXY UNKNOWN x\r1 y\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\rX\r\n",
        ] {
            assert_eq!(read(line), Reading::Bad, "{line:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_byte_by_byte() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = header(version, &facts());
            for len in 0..bytes.len() {
                assert_eq!(
                    read(&bytes[..len]),
                    Reading::Incomplete,
                    "{version:?} at {len}"
                );
            }
            let addresses = Some((facts().client, facts().local));
            assert_eq!(
                read(&bytes),
                Reading::Header {
                    len: bytes.len(),
                    addresses
                }
            );
        }
    }

    #[test]
    fn version_2_tells_name_alpn_protocol_and_id() {
        let bytes = header(ProxyVersion::V2, &facts());
        let parsed = v2::Header::try_from(&bytes[..]).expect("valid");
        let value = |kind: Type| {
            parsed
                .tlvs()
                .flatten()
                .find(|tlv| tlv.kind == u8::from(kind))
                .map(|tlv| tlv.value.to_vec())
        };
        assert_eq!(value(Type::Authority).as_deref(), Some(&b"example.com"[..]));
        assert_eq!(value(Type::ALPN).as_deref(), Some(&b"h2"[..]));
        assert_eq!(value(Type::UniqueId).as_deref(), Some(&b"0-1"[..]));
        let ssl = value(Type::SSL).expect("present");
        assert_eq!(ssl[..5], [1, 0, 0, 0, 1]);
        assert!(ssl.windows(7).any(|w| w == b"TLSv1.3"));
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let mixed = Facts {
            local: "[2001:db8::1]:443".parse().expect("address"),
            ..facts()
        };
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = header(version, &mixed);
            let Reading::Header {
                addresses: Some((client, _)),
                ..
            } = read(&bytes)
            else {
                panic!("{version:?} is not read back");
            };
            assert!(client.is_ipv6());
        }
    }

    #[test]
    fn tls_and_garbage_are_no_header() {
        assert_eq!(read(&[0x16, 3, 1]), Reading::Bad);
        assert_eq!(read(b"PROXY nonsense\r\n"), Reading::Bad);
        assert_eq!(read(&[b'P'; 200]), Reading::Bad);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix in 0..3usize) {
            let mut all = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][prefix].to_vec();
            all.extend(bytes);
            read(&all);
        }
    }
}
