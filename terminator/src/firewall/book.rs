//! What is open, for which host, and until when. Decides what may be opened; opens nothing.
//!
//! Who asks is less trusted than this: a name must be a destination, an address within the
//! configured prefixes or else an ordinary one of the Internet. Time is passed in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::destinations::{Destination, Destinations, Source};
use super::{Opening, Plan};
use crate::limits::{FIREWALL_ADDRESSES, FIREWALL_LONGEST_TTL};

/// The openings in force.
#[derive(Debug, Default)]
pub struct Book {
    destinations: Destinations,
    prefixes: Vec<IpNet>,
    allow: Vec<IpNet>,
    hold: Duration,
    /// Until when an address is open for a host.
    open: BTreeMap<(Destination, IpAddr), Instant>,
}

/// Why an address is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Neither a certificate nor the configuration names it.
    #[error("no certificate and no `ocsp.responder` names {0}, so there is no reason to reach it")]
    UnknownHost(Destination),
    /// Not within `firewall.prefixes`.
    #[error(
        "{host} has the address {address}, which is in none of `firewall.prefixes`; add its network there if that is right"
    )]
    OutsidePrefixes {
        /// The host.
        host: Destination,
        /// Its address.
        address: IpAddr,
    },
    /// An address that no public responder has.
    #[error(
        "{host} has the address {address}, which is not one of the public Internet; if that is right, list its network, and those of all other responders, in `firewall.prefixes`"
    )]
    NotPublic {
        /// The host.
        host: Destination,
        /// Its address.
        address: IpAddr,
    },
    /// Nothing was found for it.
    #[error("no address was found for {0}")]
    NoAddress(Destination),
}

impl Book {
    /// An empty one.
    pub fn new(plan: &Plan) -> Self {
        let mut book = Self::default();
        book.adopt(plan);
        book
    }

    /// Takes over what a plan allows, and closes what it does not allow any more.
    pub fn adopt(&mut self, plan: &Plan) {
        self.destinations = plan.destinations.clone();
        self.prefixes.clone_from(&plan.prefixes);
        self.allow.clone_from(&plan.allow);
        self.hold = plan.hold;
        let mut open = std::mem::take(&mut self.open);
        open.retain(|(host, address), _| self.judge(host, *address).is_ok());
        self.open = open;
    }

    /// Opens addresses that were found for a host and hold for `ttl`. Gives those that are open now,
    /// or why none is.
    pub fn admit(
        &mut self,
        host: &Destination,
        addresses: &[IpAddr],
        ttl: Duration,
        now: Instant,
    ) -> Result<Vec<IpAddr>, Denial> {
        if self.destinations.source(host).is_none() {
            return Err(Denial::UnknownHost(host.clone()));
        }
        let until = now + ttl.min(FIREWALL_LONGEST_TTL) + self.hold;
        let mut denial = Denial::NoAddress(host.clone());
        let mut admitted = Vec::new();
        for &address in addresses.iter().take(FIREWALL_ADDRESSES) {
            match self.judge(host, address) {
                Ok(()) => {
                    let end = self.open.entry((host.clone(), address)).or_insert(until);
                    *end = until.max(*end);
                    admitted.push(address);
                }
                Err(reason) => denial = reason,
            }
        }
        self.bound(host);
        match admitted.is_empty() {
            true => Err(denial),
            false => Ok(admitted),
        }
    }

    /// Whether all these stay open long enough for a fetch, without anything being done.
    pub fn holds(&self, host: &Destination, addresses: &[IpAddr], now: Instant) -> bool {
        !addresses.is_empty()
            && addresses.iter().all(|address| {
                let end = self.open.get(&(host.clone(), *address));
                end.is_some_and(|end| *end >= now + self.hold)
            })
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Instant) {
        self.open.retain(|_, until| *until > now);
    }

    /// What is open now, each address and port once. Hosts that are addresses are open for good.
    pub fn openings(&self, now: Instant) -> Vec<Opening> {
        let mut merged: BTreeMap<SocketAddr, Opening> = BTreeMap::new();
        let written = self.destinations.iter().filter_map(|host| {
            let address = host.address()?;
            let allowed = self.judge(host, address).is_ok();
            allowed.then_some((host, address, None))
        });
        let found = self.open.iter().filter_map(|((host, address), until)| {
            let left = until.checked_duration_since(now)?;
            (!left.is_zero()).then_some((host, *address, Some(left)))
        });
        for (host, address, left) in written.chain(found) {
            let to = SocketAddr::new(address, host.port);
            let opening = merged.entry(to).or_insert_with(|| Opening {
                to,
                hosts: String::new(),
                left,
            });
            opening.left = opening.left.zip(left).map(|(one, other)| one.max(other));
            if !opening.hosts.split(' ').any(|known| known == host.host) {
                let space = if opening.hosts.is_empty() { "" } else { " " };
                opening.hosts += &format!("{space}{}", host.host);
            }
        }
        merged.into_values().collect()
    }

    fn judge(&self, host: &Destination, address: IpAddr) -> Result<(), Denial> {
        let Some(source) = self.destinations.source(host) else {
            return Err(Denial::UnknownHost(host.clone()));
        };
        let host = host.clone();
        if !self.prefixes.is_empty() {
            let inside = self.prefixes.iter().any(|net| net.contains(&address));
            return inside
                .then_some(())
                .ok_or(Denial::OutsidePrefixes { host, address });
        }
        let allowed = self.allow.iter().any(|net| net.contains(&address));
        let internal = source == Source::Configuration && is_internal(address);
        (allowed || internal || is_public(address))
            .then_some(())
            .ok_or(Denial::NotPublic { host, address })
    }

    /// Closes what ends first where a host has too many addresses.
    fn bound(&mut self, host: &Destination) {
        let mut of_host: Vec<(Instant, IpAddr)> = self
            .open
            .iter()
            .filter(|((known, _), _)| known == host)
            .map(|((_, address), until)| (*until, *address))
            .collect();
        of_host.sort_unstable();
        let excess = of_host.len().saturating_sub(FIREWALL_ADDRESSES);
        for (_, address) in of_host.into_iter().take(excess) {
            self.open.remove(&(host.clone(), address));
        }
    }
}

/// Where an operator's own responder may well be.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
    }
}

/// An address of the public Internet: not loopback, private, link-local (where clouds keep their
/// metadata), shared, multicast, reserved, or one of these within an IPv6 address (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19))
                || a >= 224)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            // Of what is assigned, global unicast is 2000::/3. Tunnels and translators would carry
            // an IPv4 address past the check: 2002::/16, 2001::/32, 64:ff9b::/96, ::ffff:0:0/96.
            (first & 0xe000) == 0x2000
                && first != 0x2002
                && v6.segments()[..2] != [0x2001, 0]
                && v6.segments()[..2] != [0x2001, 0xdb8]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(20);
    const HOLD: Duration = Duration::from_secs(10);

    fn plan(prefixes: &[&str]) -> Plan {
        let mut plan = Plan {
            prefixes: prefixes.iter().map(|p| p.parse().expect("a net")).collect(),
            hold: HOLD,
            ..Plan::default()
        };
        plan.destinations
            .add("http://ocsp.example/", Source::Certificate);
        plan.destinations
            .add("http://10.0.0.9:81/", Source::Configuration);
        plan.destinations
            .add("http://169.254.169.254/", Source::Certificate);
        plan
    }

    fn host() -> Destination {
        Destination::new("ocsp.example", 80)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn open(book: &Book, now: Instant) -> Vec<String> {
        let openings = book.openings(now);
        openings.iter().map(|o| o.to.to_string()).collect()
    }

    #[test]
    fn an_address_is_open_until_its_ttl_and_the_hold_are_over() {
        let (mut book, now) = (Book::new(&plan(&[])), Instant::now());
        let addresses = [ip("93.184.215.14")];
        let admitted = book.admit(&host(), &addresses, TTL, now);
        assert_eq!(admitted, Ok(addresses.to_vec()));
        assert!(book.holds(&host(), &addresses, now + TTL));
        assert!(!book.holds(&host(), &addresses, now + TTL + HOLD / 2));
        let late = now + TTL + HOLD - Duration::from_secs(1);
        assert_eq!(open(&book, late), ["10.0.0.9:81", "93.184.215.14:80"]);
        assert_eq!(open(&book, now + TTL + HOLD), ["10.0.0.9:81"]);
        book.expire(now + TTL + HOLD);
        assert!(book.open.is_empty());
    }

    #[test]
    fn hosts_ports_and_addresses_that_nobody_configured_are_refused() {
        let (mut book, now) = (Book::new(&plan(&[])), Instant::now());
        let public = [ip("93.184.215.14")];
        for other in [
            Destination::new("evil.example", 80),
            Destination::new("ocsp.example", 22),
        ] {
            let refused = book.admit(&other, &public, TTL, now);
            assert_eq!(refused, Err(Denial::UnknownHost(other)));
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
        ] {
            let refused = book.admit(&host(), &[ip(address)], TTL, now);
            assert!(
                matches!(refused, Err(Denial::NotPublic { .. })),
                "{address}"
            );
        }
        // The operator's own may be internal; what a certificate says may not.
        assert_eq!(open(&book, now), ["10.0.0.9:81"]);
    }

    #[test]
    fn of_several_addresses_those_within_the_prefixes_are_opened() {
        let (mut book, now) = (Book::new(&plan(&["10.0.0.0/8"])), Instant::now());
        let found = [ip("93.184.215.14"), ip("10.7.7.7")];
        let admitted = book.admit(&host(), &found, TTL, now);
        assert_eq!(admitted, Ok(vec![found[1]]));
        let refused = book.admit(&host(), &found[..1], TTL, now);
        assert!(matches!(refused, Err(Denial::OutsidePrefixes { .. })));
    }

    #[test]
    fn a_new_plan_closes_what_it_does_not_name() {
        let (mut book, now) = (Book::new(&plan(&[])), Instant::now());
        let found = [ip("93.184.215.14")];
        book.admit(&host(), &found, TTL, now).expect("public");
        book.adopt(&Plan::default());
        assert!(open(&book, now).is_empty());
    }

    #[test]
    fn a_host_that_changes_its_address_without_end_holds_no_more_than_the_bound() {
        let (mut book, now) = (Book::new(&plan(&[])), Instant::now());
        for n in 0..=255 {
            let address = IpAddr::from([93, 184, 215, n]);
            book.admit(
                &host(),
                &[address],
                TTL,
                now + Duration::from_millis(n.into()),
            )
            .expect("public");
        }
        assert_eq!(book.open.len(), FIREWALL_ADDRESSES);
        let last = (host(), IpAddr::from([93, 184, 215, 255]));
        assert!(book.open.contains_key(&last), "the newest is kept");
    }
}
