//! Where requests may go. A responder's URL comes from a certificate, so whoever had one issued chose
//! it: it must not become a way to reach what only this machine can reach.
//!
//! Pure: judges a scheme, a port, an address. Whoever connects judges each address that a name has,
//! and then connects to that address, not to the name again. A responder that the operator named
//! ([`NamedBy::Operator`]) may have any port and an address of the operator's own networks, but not
//! one where nothing but a mistake or an attack can lead: metadata, link-local, multicast, reserved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::protocol::FetchError;
use super::target::{Host, Target};
use crate::config::{self, PortRange};

/// What the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Networks that are allowed although they are not public.
    pub allow: Vec<IpNet>,
    /// Ports for responders that certificates name.
    pub ports: Vec<PortRange>,
    /// Whether https is spoken.
    pub https: bool,
}

/// Who chose a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedBy {
    /// A certificate: nobody that we know.
    Certificate,
    /// The configuration.
    Operator,
}

/// Why an address is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Where clouds hand out a machine's credentials.
    Metadata,
    /// No address at all (RFC 1122 section 3.2.1.3), which the kernel takes for this machine.
    Unspecified,
    /// This machine.
    Loopback,
    /// RFC 1918.
    Private,
    /// Behind a provider's translation (RFC 6598).
    Shared,
    /// RFC 3927, RFC 4291 section 2.5.6.
    LinkLocal,
    /// RFC 4193, and the site-local addresses before it.
    UniqueLocal,
    /// Many machines.
    Multicast,
    /// An IPv4 address in the form of an IPv6 one (RFC 4291 section 2.5.5).
    Mapped,
    /// For documentation, measurement, transition or nothing yet (RFC 6890).
    Reserved,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "a cloud's metadata address",
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "an address shared behind a provider's NAT",
            Self::LinkLocal => "a link-local address",
            Self::UniqueLocal => "a unique-local address",
            Self::Multicast => "a multicast address",
            Self::Mapped => "an IPv4-mapped address",
            Self::Reserved => "a reserved address",
        })
    }
}

impl Policy {
    /// What a configuration says.
    pub fn of(config: &config::Egress) -> Self {
        Self {
            allow: config.allow.clone(),
            ports: config.ports.clone(),
            https: config.https,
        }
    }

    /// Whether a URL may be asked, as far as can be told without looking its host up.
    pub fn check(&self, url: &str, by: NamedBy) -> Result<(), FetchError> {
        let target = Target::parse(url)?;
        self.check_target(&target, by)
    }

    pub(super) fn check_target(&self, target: &Target, by: NamedBy) -> Result<(), FetchError> {
        self.check_url(target.secure, target.port, by)?;
        let Host::Address(address) = target.host else {
            return Ok(());
        };
        let judged = self.check_address(address, by);
        judged.map_err(|class| FetchError::Address {
            host: target.host.with_port(target.port),
            address,
            class,
        })
    }

    /// Whether the scheme and the port of a URL are allowed.
    pub fn check_url(&self, secure: bool, port: u16, by: NamedBy) -> Result<(), FetchError> {
        if secure && !self.https {
            return Err(FetchError::HttpsOff);
        }
        let allowed = by == NamedBy::Operator || self.ports.iter().any(|r| r.contains(port));
        match allowed {
            true => Ok(()),
            false => Err(FetchError::Port { port }),
        }
    }

    /// Whether an address may be connected to.
    pub fn check_address(&self, address: IpAddr, by: NamedBy) -> Result<(), Class> {
        let Some(class) = class(address) else {
            return Ok(());
        };
        let own = matches!(
            class,
            Class::Loopback | Class::Private | Class::Shared | Class::UniqueLocal
        );
        let allowed = self.allow.iter().any(|network| network.contains(&address));
        match allowed || (own && by == NamedBy::Operator) {
            true => Ok(()),
            false => Err(class),
        }
    }
}

/// `None` for a public address.
fn class(address: IpAddr) -> Option<Class> {
    if METADATA.contains(&address) {
        return Some(Class::Metadata);
    }
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Option<Class> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some(Class::Unspecified),
        (127, ..) => Some(Class::Loopback),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some(Class::Private),
        (100, 64..=127, _) => Some(Class::Shared),
        (169, 254, _) => Some(Class::LinkLocal),
        (224..=239, ..) => Some(Class::Multicast),
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Some(Class::Reserved)
        }
        (240.., ..) => Some(Class::Reserved),
        _ => None,
    }
}

/// Of IPv6 only what is given out as global unicast (2000::/3) is public, less what is in it for
/// other purposes, and what NAT64 makes of public IPv4 addresses (RFC 6052).
fn class_v6(address: Ipv6Addr) -> Option<Class> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Class::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Class::Loopback),
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0, 0, ..] => Some(Class::Mapped),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            class(Ipv4Addr::new(a, b, c, d).into())
        }
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Class::UniqueLocal),
        [0xfe80..=0xfebf, ..] => Some(Class::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Class::Multicast),
        // Teredo and other protocol assignments, documentation, 6to4.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => Some(Class::Reserved),
        [0x3fff, 0..=0xfff, ..] => Some(Class::Reserved),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Class::Reserved),
    }
}

/// Where machines in clouds ask for their credentials: AWS, Azure, Google and most others; AWS over
/// IPv6; Alibaba; Oracle; Azure's host, which has a public address.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        let network = |text: &&str| text.parse().expect("a network");
        Policy {
            allow: allow.iter().map(network).collect(),
            ports: vec![PortRange {
                first: 80,
                last: 80,
            }],
            https: false,
        }
    }

    fn judge(policy: &Policy, address: &str, by: NamedBy) -> Result<(), Class> {
        policy.check_address(address.parse().expect("an address"), by)
    }

    #[test]
    fn only_public_addresses_are_reached_for_a_certificate() {
        let table = [
            ("0.0.0.0", Class::Unspecified),
            ("0.1.2.3", Class::Unspecified),
            ("::", Class::Unspecified),
            ("127.0.0.1", Class::Loopback),
            ("127.255.255.254", Class::Loopback),
            ("::1", Class::Loopback),
            ("10.0.0.1", Class::Private),
            ("172.16.0.1", Class::Private),
            ("172.31.255.255", Class::Private),
            ("192.168.1.1", Class::Private),
            ("100.64.0.1", Class::Shared),
            ("100.127.255.255", Class::Shared),
            ("169.254.1.1", Class::LinkLocal),
            ("fe80::1", Class::LinkLocal),
            ("fc00::1", Class::UniqueLocal),
            ("fdff::1", Class::UniqueLocal),
            ("fec0::1", Class::UniqueLocal),
            ("224.0.0.1", Class::Multicast),
            ("ff02::1", Class::Multicast),
            ("255.255.255.255", Class::Reserved),
            ("240.0.0.1", Class::Reserved),
            ("192.0.2.1", Class::Reserved),
            ("198.18.0.1", Class::Reserved),
            ("203.0.113.1", Class::Reserved),
            ("2001:db8::1", Class::Reserved),
            ("2001::1", Class::Reserved),
            ("2002:7f00:1::", Class::Reserved),
            ("5f00::1", Class::Reserved),
            ("::ffff:127.0.0.1", Class::Mapped),
            ("::ffff:8.8.8.8", Class::Mapped),
            ("::127.0.0.1", Class::Mapped),
            ("64:ff9b::127.0.0.1", Class::Loopback),
            ("64:ff9b::a9fe:a9fe", Class::Metadata),
            ("64:ff9b:1::1", Class::Reserved),
            ("169.254.169.254", Class::Metadata),
            ("100.100.100.200", Class::Metadata),
            ("168.63.129.16", Class::Metadata),
            ("fd00:ec2::254", Class::Metadata),
        ];
        let none = policy(&[]);
        for (address, class) in table {
            let judged = judge(&none, address, NamedBy::Certificate);
            assert_eq!(judged, Err(class), "{address}");
        }
        for address in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(judge(&none, address, NamedBy::Certificate), Ok(()));
        }
    }

    #[test]
    fn what_the_operator_allows_is_reached_and_nothing_beside_it() {
        let some = policy(&["10.20.0.0/16", "::1/128"]);
        assert_eq!(judge(&some, "10.20.3.4", NamedBy::Certificate), Ok(()));
        assert_eq!(judge(&some, "::1", NamedBy::Certificate), Ok(()));
        let beside = judge(&some, "10.21.3.4", NamedBy::Certificate);
        assert_eq!(beside, Err(Class::Private));
        let mapped = judge(&some, "::ffff:10.20.3.4", NamedBy::Certificate);
        assert_eq!(mapped, Err(Class::Mapped));
    }

    #[test]
    fn a_responder_of_the_operator_may_be_near_but_not_where_only_an_attack_leads() {
        let none = policy(&[]);
        for near in ["10.1.2.3", "127.0.0.1", "fd12::1", "100.64.0.1"] {
            assert_eq!(judge(&none, near, NamedBy::Operator), Ok(()), "{near}");
        }
        for odd in [
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
            "::ffff:10.1.2.3",
        ] {
            assert!(judge(&none, odd, NamedBy::Operator).is_err(), "{odd}");
        }
        assert_eq!(none.check_url(false, 8080, NamedBy::Operator), Ok(()));
    }

    #[test]
    fn other_ports_and_a_scheme_that_is_off_are_refused() {
        let none = policy(&[]);
        let port = none.check_url(false, 8080, NamedBy::Certificate);
        assert_eq!(port, Err(FetchError::Port { port: 8080 }));
        assert_eq!(none.check_url(false, 80, NamedBy::Certificate), Ok(()));
        let https = none.check_url(true, 80, NamedBy::Operator);
        assert_eq!(https, Err(FetchError::HttpsOff));
    }
}
